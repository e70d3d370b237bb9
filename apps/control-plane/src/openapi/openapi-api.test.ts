import { Validator } from '@seriousme/openapi-schema-validator';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PERMISSIONS, type Rule } from '../access/permissions.ts';
import { createServer, type ServerOptions } from '../http/server.ts';
import { type ApiOperation, operationsOf } from '../testing/api-operations.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { registerOpenApi } from './openapi.ts';

let platform: TestPlatform;
// biome-ignore lint/suspicious/noExplicitAny: it is what is looked at
let document: any;
let operations: ApiOperation[];
beforeAll(async () => {
  platform = await TestPlatform.start();
  ({ body: document } = await platform.call('/openapi.json'));
  operations = operationsOf(document);
});
afterAll(() => platform[Symbol.asyncDispose]());

describe('the OpenAPI document', () => {
  it('is valid OpenAPI 3.1', async () => {
    const validator = new Validator();
    expect(await validator.validate(structuredClone(document))).toEqual({ valid: true });
    expect(validator.version).toBe('3.1');
  });

  it('is the same in YAML', async () => {
    const answer = await fetch(`${platform.baseUrl}/openapi.yaml`);
    expect(answer.headers.get('content-type')).toContain('application/yaml');
    const validator = new Validator();
    expect(await validator.validate(await answer.text())).toEqual({ valid: true });
    expect(validator.specification).toEqual(document);
  });

  it('names every operation, and says what it is about and how it fails', () => {
    const tags = document.tags.map(({ name }: { name: string }) => name);
    for (const { id, spec, method, path } of operations) {
      const where = `${method} ${path}`;
      expect(id, where).toMatch(/^[a-z][A-Za-z0-9]+$/);
      expect(spec.summary, where).toMatch(/\w/);
      expect(spec.tags, where).toHaveLength(1);
      expect(tags, where).toContain(spec.tags[0]);
      const error = { schema: { $ref: '#/components/schemas/ErrorResponse' } };
      for (const status of ['4XX', '5XX']) {
        expect(spec.responses[status]?.content['application/json'], where).toEqual(error);
      }
      const params = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const described = spec.parameters.filter((parameter) => parameter.in === 'path').map(({ name }) => name);
      expect(described.sort(), where).toEqual(params.sort());
    }
    const ids = operations.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('asks for the credentials that the permission of the operation takes', () => {
    for (const { id, spec, permission } of operations) {
      const rule: Rule = PERMISSIONS[permission];
      const schemes = spec.security.flatMap((each: object) => Object.keys(each));
      if (rule.for === 'public') expect(schemes, id).toEqual([]);
      else if (rule.for === 'host') expect(schemes, id).toEqual(['hostToken']);
      else if ('scope' in rule && rule.scope) expect(schemes, id).toEqual(['apiKey', 'bearer', 'cookie']);
      else expect(schemes, id).toEqual(['bearer', 'cookie']);
      if (rule.for === 'team' || rule.for === 'platform-or-team') {
        expect(spec['x-wrenn-roles'], id).toEqual(rule.roles);
        expect(spec['x-wrenn-scope'], id).toEqual(rule.scope);
        for (const role of rule.roles) expect(spec.description, id).toContain(role);
        if (rule.scope) expect(spec.description, id).toContain(rule.scope);
      }
    }
  });

  it('describes the frames of WebSockets, and answers what is no WebSocket', async () => {
    const sockets = operations.filter(({ isSocket }) => isSocket);
    expect(sockets.map(({ id }) => id)).toEqual(expect.arrayContaining(['execStream', 'processStream', 'pty']));
    for (const name of ['ExecRequestInput', 'PtyClientFrameInput', 'ProcessStreamServerFrame']) {
      expect(Object.keys(document.components.schemas)).toContain(name);
    }
    const plain = await platform.call('/v1/capsules/cl-x/pty');
    expect([plain.status, plain.body.error.reason]).toEqual([426, 'upgrade_required']);
  });

  it('refers to schemas that are there', () => {
    const schemas = Object.keys(document.components.schemas);
    for (const [, name] of JSON.stringify(document).matchAll(/#\/components\/schemas\/(\w+)/g)) {
      expect(schemas).toContain(name);
    }
  });
});

describe('a server', () => {
  it('does not start with a route that has no rule or no description', async () => {
    // Nothing is asked of it.
    const app = await createServer(pino({ level: 'silent' }), { trustedProxies: [] } as unknown as ServerOptions);
    await registerOpenApi(app);
    const schema = { operationId: 'secret', tags: ['server'], summary: 'Something' };
    expect(() => app.get('/v1/secret', { schema }, async () => null)).toThrow(/names no permission/);
    expect(() => app.get('/v1/secret', { config: { permission: 'public' } }, async () => null)).toThrow(
      /is not described/,
    );
    const hidden = { config: { permission: 'account' }, schema: { ...schema, hide: true } } as const;
    expect(() => app.get('/v1/secret', hidden, async () => null)).toThrow(/is not described/);
    await app.close();
  });
});
