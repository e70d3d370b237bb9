import { teamParamsSchema } from '@wrenn/protocol/rest/teams';
import { budgetSchema, setBudgetRequestSchema } from '@wrenn/protocol/rest/usage';
import { actorOf } from '../access/actor.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { signedIn } from '../teams/signed-in.ts';
import { readBudget, setBudget } from './budgets.ts';

export function budgetRoutes(app: Server, deps: RouteDeps): void {
  app.get(
    '/teams/:id/budget',
    {
      config: { permission: 'budget.read', teamParam: 'id' },
      schema: {
        operationId: 'getBudget',
        tags: ['usage'],
        summary: 'What a team may spend in a month, and has',
        params: teamParamsSchema,
        response: { 200: budgetSchema, ...errorResponses },
      },
    },
    ({ params }) => readBudget(deps.db, deps.settings.prices, params.id),
  );

  app.put(
    '/teams/:id/budget',
    {
      config: { permission: 'budget.write', teamParam: 'id', audit: 'domain' },
      schema: {
        operationId: 'setBudget',
        tags: ['usage'],
        summary: 'Say what a team may spend in a month, UTC',
        description:
          'Channels are told at `warn_at_pct` and when all of it is spent; with `sleep` running capsules are then paused ' +
          'and none starts, until the month ends or the budget is raised. Where the platform has no prices (`currency` is ' +
          'null) a budget has no effect.',
        params: teamParamsSchema,
        body: setBudgetRequestSchema,
        response: { 200: budgetSchema, ...errorResponses },
      },
    },
    (request) => setBudget(deps, signedIn(request).id, request.params.id, request.body, actorOf(request)),
  );
}
