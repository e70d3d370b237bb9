import type { GuestState } from '../guest-state.ts';
import { setWallClock } from '../native/libc.ts';
import { addEntropy } from './entropy.ts';
import { changeHostName } from './host-name.ts';
import { type InitRequest, parseInitRequest } from './init-request.ts';
import { writeMachineId } from './machine-id.ts';

/** Less than this is the request's own way here, and chrony's to correct. */
const CLOCK_TOLERANCE_MS = 50;

/** The parts of a machine that /init changes. */
export interface GuestSystem {
  addEntropy(entropy: Buffer): void;
  setHostName(name: string): void;
  setMachineId(id: string): void;
  now(): number;
  setWallClock(unixMs: number): void;
}

/** This machine. Only a guest's own agent may hold it. */
export const realSystem: GuestSystem = {
  addEntropy,
  setHostName: changeHostName,
  setMachineId: writeMachineId,
  now: Date.now,
  setWallClock,
};

/**
 * Carries out POST /init: all of it, or an error. The system is changed first, because that can fail; then the state,
 * which cannot.
 *
 * @param system undefined on a machine that is no guest: its clock, name and random numbers are not envd's to change
 * @returns fields that were asked for and skipped for that reason
 */
export function initialize(body: unknown, state: GuestState, system: GuestSystem | undefined): string[] {
  const request = parseInitRequest(body);
  const skipped = system ? [] : systemFields(request);
  if (system) changeSystem(request, system);
  state.accessToken = request.accessToken ?? state.accessToken;
  state.defaultUser = request.defaultUser ?? state.defaultUser;
  state.defaultWorkdir = request.defaultWorkdir ?? state.defaultWorkdir;
  for (const [name, value] of request.environment) state.environment.set(name, value);
  return skipped;
}

function changeSystem(request: InitRequest, system: GuestSystem): void {
  if (request.entropy) system.addEntropy(request.entropy);
  if (request.hostName !== undefined) system.setHostName(request.hostName);
  if (request.machineId !== undefined) system.setMachineId(request.machineId);
  // Last, so that what came before does not make it late.
  if (request.unixMs !== undefined && Math.abs(system.now() - request.unixMs) > CLOCK_TOLERANCE_MS) {
    system.setWallClock(request.unixMs);
  }
}

function systemFields(request: InitRequest): string[] {
  return [
    ...(request.entropy ? ['entropy'] : []),
    ...(request.hostName === undefined ? [] : ['hostname']),
    ...(request.machineId === undefined ? [] : ['machineId']),
    ...(request.unixMs === undefined ? [] : ['timestamp']),
  ];
}
