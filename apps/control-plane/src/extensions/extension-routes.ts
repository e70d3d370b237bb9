import { extensionListSchema } from '@wrenn/protocol/rest/server';
import { errorResponses } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';

export function extensionRoutes(app: Server, names: readonly string[]): void {
  app.get(
    '/extensions',
    {
      config: { permission: 'public' },
      schema: {
        operationId: 'listExtensions',
        tags: ['server'],
        summary: 'What this platform has beyond the core',
        response: { 200: extensionListSchema, ...errorResponses },
      },
    },
    async () => names.map((name) => ({ name })),
  );
}
