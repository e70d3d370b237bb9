import { z } from 'zod';
import { errorResponses } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import type { Metrics } from './metrics.ts';

/** `GET /metrics`, for whoever has an API key: the counts tell how much is used and by how much it fails. */
export function metricsRoute(app: Server, metrics: Metrics): void {
  app.get(
    '/metrics',
    {
      config: { permission: 'metrics.read' },
      schema: {
        operationId: 'metrics',
        tags: ['server'],
        summary: 'Metrics of this control plane in the text format of Prometheus',
        produces: ['text/plain'],
        response: { 200: z.string().meta({ description: 'One line a value.' }), ...errorResponses },
      },
    },
    async (_request, reply) => {
      const { contentType, text } = await metrics.render();
      reply.type(contentType).serializer((content: string) => content);
      return text;
    },
  );
}
