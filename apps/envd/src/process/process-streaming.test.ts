import { once } from 'node:events';
import { request } from 'node:http';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type ChildEnvd, startChildEnvd } from '../testing/child-envd.ts';
import { createClients, shell } from '../testing/test-envd.ts';

const MIB = 1024 * 1024;
let envd: ChildEnvd;

beforeAll(async () => {
  envd = await startChildEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

/**
 * Well below what the streams carry, 150 MB and more and a third more than that as JSON. How many used-up buffers V8
 * leaves lying about before it cleans depends on how busy the machine is: 84 MB were seen.
 */
const ALLOWED_GROWTH = 140 * MIB;

describe('large output', () => {
  it('streams 200 MB whole, in order and in constant memory', async () => {
    const client = createClients(envd.url).process;
    const BYTES = 200 * MIB;
    for await (const _event of client.start(shell('head -c 20000000 /dev/zero'))) {
      // Warms the code paths up, so that the measurement below sees output and not compilation.
    }
    const before = envd.residentBytes();
    let peak = before;
    let received = 0;
    let end: bigint | undefined;
    for await (const { event } of client.start(shell(`head -c ${BYTES} /dev/zero`))) {
      if (event?.event.case === 'data') {
        expect(Number(event.event.value.offset)).toBe(received);
        received += event.event.value.output.value?.length ?? 0;
        peak = Math.max(peak, envd.residentBytes());
      } else if (event?.event.case === 'end') end = event.event.value.outputOffset;
    }
    expect(received).toBe(BYTES);
    expect(end).toBe(BigInt(BYTES));
    expect(peak - before).toBeLessThan(ALLOWED_GROWTH);
  }, 120_000);

  it('stops reading a process whose client does not read, then goes on where it was', async () => {
    const client = createClients(envd.url).process;
    const before = envd.residentBytes();
    // A raw connection, because a client library would read ahead.
    const message = JSON.stringify({
      process: { cmd: '/bin/sh', args: ['-c', 'head -c 150000000 /dev/zero; printf end'] },
    });
    const envelope = Buffer.concat([Buffer.alloc(5), Buffer.from(message)]);
    envelope.writeUInt32BE(message.length, 1);
    const outgoing = request(`${envd.url}/process.Process/Start`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/connect+json' },
    });
    onTestFinished(() => void outgoing.destroy());
    outgoing.end(envelope);
    const [response] = await once(outgoing, 'response');
    response.pause();
    const offset = async () => (await client.list({})).processes[0]?.outputOffset ?? 0n;
    // It stands still when two looks, far enough apart for megabytes, see the same.
    let last = -1n;
    await until('the process is held', async () => {
      const now = await offset();
      const still = now === last && now > 0n;
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return still;
    });
    expect(last).toBeLessThan(20_000_000n);
    expect(envd.residentBytes() - before).toBeLessThan(ALLOWED_GROWTH);

    let tail = '';
    response.resume();
    response.on('data', (chunk: Buffer) => {
      tail = (tail + chunk.toString('latin1')).slice(-4096);
    });
    await once(response, 'end');
    expect(tail).toContain('"outputOffset":"150000003"');
    expect(tail).toContain('"status":"exit status 0"');
  }, 60_000);

  it('ends a process at its exit though a client that does not read is attached', async () => {
    const client = createClients(envd.url).process;
    const events = client
      .start(shell('head -c 400000 /dev/zero; read go; head -c 60000 /dev/zero; exit 2'))
      [Symbol.asyncIterator]();
    const { value } = await events.next();
    const pid = value?.event?.event.case === 'start' ? value.event.event.value.pid : 0;
    const selector = { selector: { case: 'pid', value: pid } } as const;
    await client.sendInput({ process: selector, input: { input: { case: 'stdin', value: Buffer.from('\n') } } });
    await until('it is no longer listed', async () => (await client.list({})).processes.length === 0);
    let received = 0;
    let exitCode: number | undefined;
    for await (const { event } of { [Symbol.asyncIterator]: () => events }) {
      if (event?.event.case === 'data') received += event.event.value.output.value?.length ?? 0;
      if (event?.event.case === 'end') exitCode = event.event.value.exitCode;
    }
    expect({ received, exitCode }).toEqual({ received: 460_000, exitCode: 2 });
  });

  it('lets a process go on when the client that held it goes away', async () => {
    const client = createClients(envd.url).process;
    const abort = new AbortController();
    const events = client.start(shell('head -c 30000000 /dev/zero'), { signal: abort.signal })[Symbol.asyncIterator]();
    const { value } = await events.next();
    const pid = value?.event?.event.case === 'start' ? value.event.event.value.pid : 0;
    abort.abort();
    await until('it has ended', async () => (await client.list({})).processes.length === 0);
    const selector = { selector: { case: 'pid', value: pid } } as const;
    let bytes = 0;
    let exitCode: number | undefined;
    for await (const { event } of client.connect({ process: selector, fromOffset: 0n })) {
      if (event?.event.case === 'data') bytes += event.event.value.output.value?.length ?? 0;
      if (event?.event.case === 'end') exitCode = event.event.value.exitCode;
    }
    expect({ bytes, exitCode }).toEqual({ bytes: 30_000_000, exitCode: 0 });
  }, 60_000);
});
