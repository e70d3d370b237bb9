import { createHash } from 'node:crypto';
import type { GuestSettings } from '../guest/init-guest.ts';
import type { GuestDefaults } from '../journal/vm-record.ts';
import type { GuestInit } from './vm.ts';

/** What the request says, and the defaults where it says nothing. The machine id is the capsule's own for ever. */
export function guestSettings(id: string, init: GuestInit, defaults: GuestDefaults, guestToken: string): GuestSettings {
  return {
    accessToken: init.accessToken,
    ...(guestToken ? { guestToken } : {}),
    envs: { ...defaults.envs, ...init.envs },
    user: init.user || defaults.user,
    workdir: init.workdir || defaults.workdir,
    hostname: init.hostname || id,
    machineId: createHash('sha256').update(`machine:${id}`).digest('hex').slice(0, 32),
  };
}

/** Tells settings apart without keeping what is secret in them. */
export function initDigest({ accessToken, envs, user, workdir, hostname }: GuestInit): string {
  const sorted = Object.entries(envs).sort(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify([accessToken, sorted, user, workdir, hostname]);
  return createHash('sha256').update(text).digest('hex');
}
