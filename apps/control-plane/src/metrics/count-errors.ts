import { toCatalogue } from '../http/error-handler.ts';
import type { Server } from '../http/server.ts';
import type { Metrics } from './metrics.ts';

/** Counts every error that a request is answered with. Before any route. */
export function countErrors(app: Server, metrics: Pick<Metrics, 'recordError'>): void {
  app.addHook('onError', async (request, _reply, error) => {
    // What this answered would be the next hook's error.
    metrics.recordError(toCatalogue(error, request).code);
  });
}
