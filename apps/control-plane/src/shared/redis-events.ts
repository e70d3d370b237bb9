import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { type Announcement, carryAnnouncements } from './announce.ts';
import type { RedisClient, RedisLink } from './redis-link.ts';

/** How often everything is looked at that nobody may have told of: a control plane died before it could. */
const LOOK_EVERY_MS = 30_000;
/** The same while this control plane hears nothing from Redis. */
const LOOK_AWAY_EVERY_MS = 5000;

/** Whoever is told what control planes announce. */
export interface Hearer {
  hear(announcement: Announcement): void;
  /** Announcements may have been missed. */
  missed(): void;
}

export interface RedisEventsOptions {
  readonly db: Db;
  readonly link: RedisLink;
  readonly topic: string;
  readonly hearer: Hearer;
  readonly log: Logger;
}

/** Makes a connection hear what is announced. */
export async function subscribe(client: RedisClient, topic: string, hearer: Hearer): Promise<void> {
  await client.subscribe(topic, (message) => {
    const space = message.indexOf(' ');
    if (space > 0) hearer.hear({ channel: message.slice(0, space), payload: message.slice(space + 1) });
  });
}

/** Carries announcements by Redis; by PostgreSQL, on which everybody listens too, as long as Redis is away. */
export class RedisEvents implements AsyncDisposable {
  readonly #options: RedisEventsOptions;
  readonly #carrying: Disposable;
  readonly #sending = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  #looksLeft = LOOK_EVERY_MS / LOOK_AWAY_EVERY_MS;

  constructor(options: RedisEventsOptions) {
    this.#options = options;
    this.#carrying = carryAnnouncements(options.db, (announcements) => this.#carry(announcements));
    this.#timer = setInterval(() => this.#look(), LOOK_AWAY_EVERY_MS);
    this.#timer.unref();
  }

  #carry(announcements: readonly Announcement[]): void {
    const sent = this.#send(announcements)
      .catch((err: unknown) => this.#options.log.warn({ err }, 'could not tell the other control planes'))
      .finally(() => this.#sending.delete(sent));
    this.#sending.add(sent);
  }

  async #send(announcements: readonly Announcement[]): Promise<void> {
    const { db, link, topic } = this.#options;
    try {
      await link.run((client) =>
        Promise.all(announcements.map(({ channel, payload }) => client.publish(topic, `${channel} ${payload}`))),
      );
    } catch (err) {
      this.#options.log.debug({ err }, 'tells the other control planes by PostgreSQL');
      await db.execute(sql`
        SELECT pg_notify(channel, payload)
        FROM json_to_recordset(${JSON.stringify(announcements)}::json) AS told (channel text, payload text)`);
    }
  }

  #look(): void {
    this.#looksLeft -= 1;
    if (this.#options.link.isUp && this.#looksLeft > 0) return;
    this.#looksLeft = LOOK_EVERY_MS / LOOK_AWAY_EVERY_MS;
    this.#options.hearer.missed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#carrying[Symbol.dispose]();
    await Promise.all(this.#sending);
  }
}
