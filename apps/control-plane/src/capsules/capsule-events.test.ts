import { CAPSULE_STATUSES } from '@wrenn/protocol/rest/capsule';
import { expect, it } from 'vitest';
import { eventOfMove } from './capsule-events.ts';
import { isLegalMove } from './transition.ts';

it('tells of every move that is news, and of no other', () => {
  const told = CAPSULE_STATUSES.flatMap((from) =>
    CAPSULE_STATUSES.filter((to) => isLegalMove(from, to) && to !== 'error').flatMap((to) => {
      const event = eventOfMove(from, to);
      return event ? [`${from}>${to}: ${event}`] : [];
    }),
  );
  expect(told.toSorted()).toEqual(
    [
      ...['starting', 'resuming', 'missing', 'paused', 'hibernated', 'error'].map(
        (from) => `${from}>running: capsule.running`,
      ),
      ...['pausing', 'running', 'missing', 'forking', 'error'].map((from) => `${from}>paused: capsule.paused`),
      ...['hibernating>hibernated: capsule.hibernated', 'running>missing: capsule.missing'],
      'stopping>stopped: capsule.destroyed',
    ].toSorted(),
  );
  for (const from of CAPSULE_STATUSES)
    if (isLegalMove(from, 'error')) expect(eventOfMove(from, 'error')).toBe('capsule.error');
});
