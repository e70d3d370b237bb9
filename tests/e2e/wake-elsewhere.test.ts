import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { newId } from '@wrenn/protocol/ids';
import { expect, it } from 'vitest';
import { runInGuest, TestAgent } from './support/host-agent.ts';

it('a hibernated VM wakes on another host, which never had its template’s snapshot', async () => {
  await using stack = new AsyncDisposableStack();
  const shared = await mkdtemp(join(tmpdir(), 'wrenn-objects-'));
  stack.defer(() => rm(shared, { recursive: true }));
  const env = { WRENN_WARM_POOL_MAX_MB: '0', WRENN_OBJECT_STORE: pathToFileURL(shared).href };
  const first = stack.use(await TestAgent.create(undefined, env));
  const second = stack.use(await TestAgent.create(undefined, env));
  await Promise.all([first.start(), second.start()]);

  const id = newId('cl');
  const init = { accessToken: 'first', hostname: 'first' };
  const { vm } = await first.client.createVm({ id, template: 'minimal', shape: { vcpus: 1, memoryMb: 256 }, init });
  const prepare = 'head -c 3000000 /dev/urandom > ~/data; echo kept > /dev/shm/memory; sha256sum ~/data';
  const sum = await runInGuest(vm?.hostIp ?? '', 'first', prepare);
  await first.client.pauseVm({ id, generation: 1 });
  const objectKey = `capsules/${id}/1`;
  await first.client.hibernateVm({ id, generation: 1, objectKey });
  await first.client.forgetVm({ id, generation: 1 });

  const elsewhere = { accessToken: 'second', hostname: 'second' };
  const { vm: awake } = await second.client.resumeVm({ id, generation: 1, objectKey, init: elsewhere });
  const said = await runInGuest(awake?.hostIp ?? '', 'second', 'sha256sum ~/data; cat /dev/shm/memory; hostname');
  expect(said).toBe(`${sum}kept\nsecond\n`);
  expect(await readdir(wrennDir(second.dir).templateSnapshots)).toEqual([]);
  expect((await first.client.listVms({})).vms).toEqual([]);
});
