import { WrennError } from '@wrenn/protocol/errors';
import { VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { FleetHost } from '../testing/fleet-host.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let adminToken: string;
/** Two that share an object store. */
let first: FleetHost;
let second: FleetHost;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  platform = stack.use(await TestPlatform.start({}, { hostSilenceMs: 60_000 }));
  people = stack.use(await TestPeople.of(platform));
  adminToken = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  // Whatever is made from here on is for hosts that registered.
  await platform.host.goSilent();
  first = stack.use(await FleetHost.join(platform, { adminToken, tags: ['first'] }));
  await first.online(1);
  second = stack.use(await FleetHost.join(platform, { adminToken, tags: ['second'] }));
  second.loopback.shareStoreOf(first.loopback);
  await second.online(2);
});
afterAll(() => stack.disposeAsync());
beforeEach(async () => {
  for (const host of [first, second]) host.loopback.requests.length = 0;
});
afterEach(() => {
  for (const host of [first, second]) host.loopback.behave();
});

const createOn = (tag: string, template: string) =>
  platform.call('/v1/capsules', { json: { template, host_tags: [tag] } });

/** Gives the first host another template, of which its next heartbeat tells. */
async function addTemplate(name: string): Promise<void> {
  first.loopback.templates.add(name);
  expect((await first.heartbeat({ templates: [...first.loopback.templates] })).status).toBe(200);
}

const templatesOf = async (host: FleetHost): Promise<string[]> => {
  const { rows } = await people.db.execute<{ templates: string[] }>(
    `SELECT templates FROM hosts WHERE id = '${host.id}'`,
  );
  return rows[0]?.templates ?? [];
};

it('has a host give its template to another that lacks it, once', async () => {
  await addTemplate('python');
  const made = await createOn('second', 'python');
  expect(made).toMatchObject({ status: 201, body: { status: 'running' } });
  expect(second.loopback.vmIds()).toContain(made.body.id);
  expect(first.loopback.asked('publishTemplate')).toHaveLength(1);
  expect(second.loopback.asked('create').at(-1)).toMatchObject({ template: 'python', objectKey: 'images/python' });
  expect(await templatesOf(second)).toContain('python');
  expect((await createOn('second', 'python')).status).toBe(201);
  expect(first.loopback.asked('publishTemplate')).toHaveLength(1);
});

it('gives what was put into the object store before, when the host that has it cannot be asked', async () => {
  await addTemplate('node');
  expect((await createOn('second', 'node')).status).toBe(201);
  second.loopback.templates.delete('node');
  first.loopback.before.publishTemplate = async () => {
    throw new WrennError('object_store_failed', { problem: 'it is full' });
  };
  expect((await createOn('second', 'node')).status).toBe(201);
  expect(second.loopback.templates.has('node')).toBe(true);
});

it('says why a template does not arrive', async () => {
  await addTemplate('ruby');
  first.loopback.before.publishTemplate = async () => {
    throw new WrennError('object_store_failed', { problem: 'it is full' });
  };
  const refused = await createOn('second', 'ruby');
  expect(refused).toMatchObject({ status: 502, body: { error: { reason: 'object_store_failed' } } });
  expect(refused.body.error.message).toContain('it is full');
  expect(await createOn('second', 'nowhere')).toMatchObject({ status: 404 });
});

it('has a snapshot taken to another host, and removed from all of them', async () => {
  const { body: capsule } = await createOn('first', 'minimal');
  const kept = await platform.call(`/v1/capsules/${capsule.id}/snapshots`, { json: { name: 'kept' } });
  expect(kept.status).toBe(201);
  const made = await createOn('second', 'kept');
  expect(made).toMatchObject({ status: 201, body: { snapshot_id: kept.body.id } });
  expect(second.loopback.vmIds()).toContain(made.body.id);
  expect(first.loopback.asked('publishSnapshot')).toHaveLength(1);
  expect((await createOn('second', 'kept')).status).toBe(201);
  expect(first.loopback.asked('publishSnapshot')).toHaveLength(1);
  // A copy that its host gave up is fetched again, also without the host that made it.
  expect(second.loopback.dropSnapshots()).toBe(1);
  expect((await createOn('second', 'kept')).status).toBe(201);
  expect(first.loopback.asked('publishSnapshot')).toHaveLength(1);
  expect((await platform.fetch('/v1/snapshots/kept', { method: 'DELETE' })).status).toBe(204);
  await until('nothing of it is left', async () => {
    const left = [...first.loopback.snapshotIds(), ...second.loopback.snapshotIds()];
    return left.length === 0 && !first.loopback.published.has(`snapshots/${kept.body.id}`);
  });
});

it('leaves nothing in the object store of a snapshot that was deleted while it was put there', async () => {
  const { body: capsule } = await createOn('first', 'minimal');
  const { body: kept } = await platform.call(`/v1/capsules/${capsule.id}/snapshots`, { json: { name: 'crossed' } });
  const [stored, removing] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const [answer, remove] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  first.loopback.after.publishSnapshot = async () => {
    stored.resolve();
    await answer.promise;
  };
  // Asked for when the row was read, which said nothing of the object store.
  first.loopback.before.deleteSnapshot = async () => {
    removing.resolve();
    await remove.promise;
  };
  const made = createOn('second', 'crossed');
  await stored.promise;
  expect((await platform.fetch('/v1/snapshots/crossed', { method: 'DELETE' })).status).toBe(204);
  await removing.promise;
  answer.resolve();
  expect(await made).toMatchObject({ status: 404, body: { error: { reason: 'template_not_found' } } });
  remove.resolve();
  await until('nothing of it is left', async () => {
    const hosts = [...first.loopback.snapshotIds(), ...second.loopback.snapshotIds()];
    return !hosts.includes(kept.id) && !first.loopback.published.has(`snapshots/${kept.id}`);
  });
});

it('keeps a snapshot in the object store when its host is taken away', async () => {
  await using third = await FleetHost.join(platform, { adminToken, tags: ['third'] });
  third.loopback.shareStoreOf(first.loopback);
  await third.online(3);
  const { body: capsule } = await createOn('third', 'minimal');
  const both: string[] = [];
  for (const name of ['stored', 'lost']) {
    both.push((await platform.call(`/v1/capsules/${capsule.id}/snapshots`, { json: { name } })).body.id);
  }
  expect((await createOn('second', 'stored')).status).toBe(201);
  const gone = await platform.call(`/v1/hosts/${third.id}?force=true`, { method: 'DELETE', token: adminToken });
  expect(gone.status).toBe(204);
  expect((await createOn('first', 'stored')).status).toBe(201);
  expect((await createOn('first', 'lost')).status).toBe(404);
  expect((await platform.fetch('/v1/snapshots/stored', { method: 'DELETE' })).status).toBe(204);
  await until('nothing of it is left', async () => first.loopback.published.get(`snapshots/${both[0]}`) === undefined);
});

it('wakes a paused capsule where its files are, and a hibernated one elsewhere too', async () => {
  const { body: made } = await platform.call('/v1/capsules', { json: { template: 'minimal', host_tags: [] } });
  const id: string = made.id;
  const [own, other] = first.loopback.vmIds().includes(id) ? [first, second] : [second, first];
  const post = (verb: string) => platform.call(`/v1/capsules/${id}/${verb}`, { method: 'POST' });
  expect((await post('pause')).status).toBe(200);
  await platform.call(`/v1/hosts/${own.id}/cordon`, { method: 'POST', token: adminToken });
  expect((await post('resume')).body.status).toBe('running');
  expect(own.loopback.vm(id)?.state).toBe(VmState.RUNNING);
  expect((await post('pause')).status).toBe(200);
  expect((await post('hibernate')).status).toBe(200);
  expect(own.loopback.vm(id)).toBeUndefined();
  expect((await post('resume')).body.status).toBe('running');
  expect(other.loopback.vm(id)?.state).toBe(VmState.RUNNING);
});
