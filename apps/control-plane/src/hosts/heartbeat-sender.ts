import type { HostRow } from '../database/host-schema.ts';

/** So many restarts are remembered; a copy that was silent for longer counts as a restart. */
const MAX_PAST_BOOTS = 32;

/** Which process of an agent a heartbeat is from. */
export interface Sender {
  readonly bootId: string;
  readonly sequence: number;
  readonly sentAt: Date;
}

type Known = Pick<HostRow, 'bootId' | 'pastBootIds' | 'heartbeatSequence' | 'heartbeatSentAt'>;

/** What becomes of a host's row: another process counts from now on. */
export type Succession = Pick<HostRow, 'bootId' | 'pastBootIds'>;

/**
 * Whether a heartbeat is the next one of the agent whose host it is. An agent that was started anew takes the place of
 * the one before, which never comes back: where it does, two agents use the same credentials. The later one counts, since
 * an agent that was restarted must not be locked out.
 *
 * @returns `repeated`: the same one came already; `shared`: of a copy; otherwise it counts
 */
export function judgeSender(known: Known, { bootId, sequence, sentAt }: Sender): 'repeated' | 'shared' | Succession {
  const { pastBootIds } = known;
  if (pastBootIds.includes(bootId)) return 'shared';
  if (bootId !== known.bootId) {
    const past = known.bootId === null ? pastBootIds : [known.bootId, ...pastBootIds];
    return { bootId, pastBootIds: past.slice(0, MAX_PAST_BOOTS) };
  }
  if (known.heartbeatSequence === null || sequence > known.heartbeatSequence) return { bootId, pastBootIds };
  // A proxy may have sent it twice; a copy of the running process would count on by itself.
  const isSame = sequence === known.heartbeatSequence && sentAt.getTime() === known.heartbeatSentAt?.getTime();
  return isSame ? 'repeated' : 'shared';
}
