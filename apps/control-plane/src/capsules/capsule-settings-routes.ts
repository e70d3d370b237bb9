import { capsuleParamsSchema, capsuleSchema, updateCapsuleRequestSchema } from '@wrenn/protocol/rest/capsule';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { toCapsuleBody } from './capsule-body.ts';
import { changeCapsuleSettings } from './capsule-settings.ts';

export function capsuleSettingsRoutes(app: Server, deps: RouteDeps): void {
  app.patch(
    '/capsules/:id',
    {
      config: { permission: 'capsule.write', audit: { resource: 'capsule', action: 'update', by: 'domain' } },
      schema: {
        operationId: 'updateCapsule',
        tags: ['capsules'],
        summary: 'Change when a capsule goes to sleep, and its labels',
        description:
          'In every state that has not ended. It is no use of the capsule: one that has been idle for longer than a new ' +
          '`timeout_sec` is idle at once.',
        params: capsuleParamsSchema,
        body: updateCapsuleRequestSchema,
        response: { 200: capsuleSchema, ...errorResponses },
      },
    },
    async ({ caller, params, body }) => toCapsuleBody(await changeCapsuleSettings(deps, caller, params.id, body)),
  );
}
