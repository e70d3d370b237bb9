import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { PERMISSIONS, type Permission, type Rule } from '../access/permissions.ts';

type Document = Parameters<typeof jsonSchemaTransform>[0];

const ERROR_CONTENT = { 'application/json': { schema: errorResponseSchema } };
const ERRORS = {
  '4xx': { description: 'It was refused; the error says why and what to do.', content: ERROR_CONTENT },
  '5xx': { description: 'It failed; the error says whether repeating it can help.', content: ERROR_CONTENT },
};
/** Of routes that read their body by themselves. */
const UPLOAD = {
  content: {
    'multipart/form-data': {
      schema: {
        type: 'object',
        properties: { path: { type: 'string' }, file: { type: 'string', format: 'binary' } },
        required: ['file'],
      },
    },
    'application/octet-stream': { schema: { type: 'string', format: 'binary' } },
  },
};
const SWITCHED = { 101: { description: 'The WebSocket is open.', type: 'null' } };

/** What the document says of a route: its own words, and who may use it. */
export const describeRoute: typeof jsonSchemaTransform = (document) => {
  const { permission, isSocket, teamParam } = (document.route as Document['route']).config ?? {};
  if (!document.schema || document.schema.hide || !permission) return jsonSchemaTransform(document);
  const rule: Rule = PERMISSIONS[permission];
  const { description, response, ...schema } = document.schema;
  const described = jsonSchemaTransform({
    ...document,
    schema: {
      ...schema,
      description: [description, whoMay(rule)].filter(Boolean).join('\n\n'),
      security: securityOf(rule),
      response: { ...(response as object), ...ERRORS },
    },
  });
  return {
    ...described,
    schema: {
      ...described.schema,
      ...(schema.consumes?.includes('multipart/form-data') && !schema.body ? { body: UPLOAD } : {}),
      ...describePermission(permission, rule),
      ...(teamParam ? { 'x-wrenn-team-param': teamParam } : {}),
      ...(isSocket ? { response: { ...SWITCHED, ...(described.schema.response as object) } } : {}),
    },
  };
};

/** One of these is needed; none: everybody may. */
function securityOf(rule: Rule): Record<string, string[]>[] {
  switch (rule.for) {
    case 'public':
      return [];
    case 'host':
      return [{ hostToken: [] }];
    case 'platform-or-team':
    case 'team':
      return [...(rule.scope ? [{ apiKey: [] }] : []), { bearer: [] }, { cookie: [] }];
    case 'account':
    case 'platform':
      return [{ bearer: [] }, { cookie: [] }];
  }
}

function whoMay(rule: Rule): string {
  switch (rule.for) {
    case 'public':
      return 'For everybody, without a credential.';
    case 'account':
      return 'For people who are logged in, in a team or not.';
    case 'platform':
      return 'For administrators of the platform who are logged in.';
    case 'host':
      return 'For the agent of that host, with the token of its registration.';
    case 'platform-or-team':
      return `For administrators of the platform. ${whoMay({ ...rule, for: 'team' })}`;
    case 'team': {
      const keys = rule.scope ? `, and for API keys with the scope \`${rule.scope}\`` : '; not for API keys';
      return `For the roles ${rule.roles.join(', ')} of the team${keys}.`;
    }
  }
}

/** The same for programs. */
function describePermission(permission: Permission, rule: Rule): Record<string, unknown> {
  const ofTeam = rule.for === 'team' || rule.for === 'platform-or-team';
  const scope = ofTeam && rule.scope ? { 'x-wrenn-scope': rule.scope } : {};
  return {
    'x-wrenn-permission': permission,
    ...(ofTeam ? { 'x-wrenn-roles': rule.roles } : {}),
    ...scope,
  };
}
