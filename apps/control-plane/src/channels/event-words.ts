import type { EventType } from '@wrenn/protocol/rest/channels';
import type { EventRow } from '../database/channel-schema.ts';

/** What happened, for people who read it in a chat or a mail. */
export interface EventWords {
  /** One line. */
  readonly title: string;
  /** Names and values, each a line. */
  readonly facts: readonly (readonly [name: string, value: string])[];
}

const TITLES: Readonly<Record<EventType, (id: string) => string>> = {
  'capsule.created': (id) => `Capsule ${id} was created`,
  'capsule.running': (id) => `Capsule ${id} is running`,
  'capsule.paused': (id) => `Capsule ${id} is paused`,
  'capsule.hibernated': (id) => `Capsule ${id} is hibernated`,
  'capsule.forked': (id) => `Capsule ${id} was forked`,
  'capsule.missing': (id) => `Capsule ${id} is missing: its host does not answer`,
  'capsule.error': (id) => `Capsule ${id} failed`,
  'capsule.destroyed': (id) => `Capsule ${id} was destroyed`,
  'template.snapshot.created': (id) => `Snapshot ${id} was created`,
  'template.snapshot.deleted': (id) => `Snapshot ${id} was deleted`,
  'build.started': (id) => `Build ${id} has started`,
  'build.succeeded': (id) => `Build ${id} succeeded`,
  'build.failed': (id) => `Build ${id} failed`,
  'host.up': (id) => `Host ${id} is up`,
  'host.down': (id) => `Host ${id} is down`,
  'member.invited': () => 'Somebody was invited to the team',
  'member.added': (id) => `${id} joined the team`,
  'member.removed': (id) => `${id} is no longer in the team`,
  'member.role_changed': (id) => `${id} has another role in the team`,
  'team.owner_changed': () => 'The team has another owner',
  'team.deleted': () => 'The team was deleted',
  'api_key.created': (id) => `API key ${id} was created`,
  'api_key.revoked': (id) => `API key ${id} was revoked`,
  'budget.warning': () => 'The budget of the team is nearly used up',
  'budget.exceeded': () => 'The budget of the team is used up',
  'channel.test': () => 'This is a test: the channel works',
};

export function wordsFor(event: EventRow): EventWords {
  const title = Object.hasOwn(TITLES, event.type) ? TITLES[event.type as EventType](event.resourceId) : event.type;
  const facts = Object.entries(event.data).flatMap(([name, value]) => {
    if (value === null || value === undefined || value === '') return [];
    const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
    return [[name.replaceAll('_', ' '), text] as const];
  });
  return {
    title,
    facts: [...facts, ['by', event.actorName], ['at', event.createdAt.toISOString()], ['event', event.type]],
  };
}
