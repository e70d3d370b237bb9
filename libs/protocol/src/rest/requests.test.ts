import { describe, expect, it } from 'vitest';
import { createCapsuleRequestSchema } from './capsule.ts';
import { execRequestSchema } from './exec.ts';
import { execStreamClientFrameSchema } from './process-stream.ts';
import { ptyClientFrameSchema } from './pty.ts';

describe('createCapsuleRequestSchema', () => {
  it('fills its defaults, and leaves the shape to the template', () => {
    expect(createCapsuleRequestSchema.parse({})).toEqual({
      template: 'minimal',
      timeout_sec: 0,
      on_timeout: 'pause',
      auto_resume: false,
      envs: {},
      metadata: {},
      host_tags: [],
    });
  });

  it.each([
    { vcpus: 0 },
    { vcpus: 1.5 },
    { memory_mb: -1 },
    { template: '../etc' },
    { template: '' },
    { timeout_sec: -1 },
    { envs: { 'A=B': 'x' } },
    { metadata: { kernel_version: 'mine' } },
  ])('refuses %j', (body) => {
    expect(createCapsuleRequestSchema.safeParse(body).success).toBe(false);
  });
});

describe('execRequestSchema', () => {
  it('takes what existing clients send, nulls too', () => {
    const body = { cmd: '/bin/sh', args: ['-c', 'ls'], background: null, timeout_sec: null, envs: null, cwd: null };
    expect(execRequestSchema.parse(body)).toMatchObject({ timeout_sec: 30, background: false });
  });

  it('keeps 0 as "never"', () => {
    expect(execRequestSchema.parse({ cmd: 'ls', timeout_sec: 0 }).timeout_sec).toBe(0);
  });

  it('refuses a tag that reads as a pid, and NUL characters', () => {
    expect(execRequestSchema.safeParse({ cmd: 'ls', tag: '12' }).success).toBe(false);
    expect(execRequestSchema.safeParse({ cmd: 'a\0b' }).success).toBe(false);
    expect(execRequestSchema.safeParse({ cmd: 'ls', args: ['a\0b'] }).success).toBe(false);
  });
});

describe('WebSocket frames', () => {
  it('start a PTY of 80 by 24', () => {
    expect(ptyClientFrameSchema.parse({ type: 'start' })).toMatchObject({ cols: 80, rows: 24 });
  });

  it('refuse unknown types and input that is not base64', () => {
    expect(ptyClientFrameSchema.safeParse({ type: 'nonsense' }).success).toBe(false);
    expect(ptyClientFrameSchema.safeParse({ type: 'input', data: '%%' }).success).toBe(false);
    expect(execStreamClientFrameSchema.safeParse({ type: 'start' }).success).toBe(false);
  });
});
