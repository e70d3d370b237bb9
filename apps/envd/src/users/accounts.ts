import { readFileSync, statSync } from 'node:fs';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';

/** A user of the guest. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
  readonly shell: string;
  /** Groups that the user is in besides `gid`. */
  readonly supplementaryGids: readonly number[];
}

interface Group {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** Read here and not through the C library, whose name services would need the guest's own libraries. */
const PASSWD = '/etc/passwd';
const GROUP = '/etc/group';

/** The account of that name. Fails with `unknown_user`. */
export function findAccount(name: string): Account {
  const account = accounts().find((candidate) => candidate.name === name);
  if (account === undefined) throw new WrennError('unknown_user', { user: name });
  return account;
}

/** Accounts of people: Debian gives them user ids from 1000 on, below those of the overflow user. */
export function regularAccounts(): Account[] {
  return accounts().filter(({ uid }) => uid >= 1000 && uid < 60_000);
}

/** The account that envd itself runs as. */
export function ownAccount(): Account {
  const uid = process.getuid?.() ?? 0;
  return (
    accounts().find((candidate) => candidate.uid === uid) ?? {
      name: String(uid),
      uid,
      gid: process.getgid?.() ?? 0,
      home: process.env.HOME ?? '/',
      shell: '/bin/sh',
      supplementaryGids: [],
    }
  );
}

/** The name of a user id, or the number as text where it has none. */
export function userName(uid: number): string {
  return accounts().find((candidate) => candidate.uid === uid)?.name ?? String(uid);
}

/** The name of a group id, or the number as text where it has none. */
export function groupName(gid: number): string {
  return groups().find((candidate) => candidate.gid === gid)?.name ?? String(gid);
}

const accounts = cachedByFile([PASSWD, GROUP], () =>
  records(PASSWD).flatMap(([name, , uid, gid, , home, shell]): Account[] => {
    if (!name || !isId(uid) || !isId(gid)) return [];
    const primary = Number(gid);
    return [
      {
        name,
        uid: Number(uid),
        gid: primary,
        home: home || '/',
        shell: shell || '/bin/sh',
        supplementaryGids: groups()
          .filter((group) => group.gid !== primary && group.members.includes(name))
          .map((group) => group.gid),
      },
    ];
  }),
);

const groups = cachedByFile([GROUP], () =>
  records(GROUP).flatMap(([name, , gid, members]): Group[] =>
    name && isId(gid) ? [{ name, gid: Number(gid), members: members?.split(',').filter(Boolean) ?? [] }] : [],
  ),
);

function isId(text: string | undefined): text is string {
  return text !== undefined && /^\d+$/.test(text);
}

function records(path: string): string[][] {
  return read(path)
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    // A root file system without the file has no users but by number.
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}

/** Reads again when one of the files has changed, because programs in the guest add users and groups. */
function cachedByFile<T>(paths: readonly string[], load: () => T): () => T {
  let cached: { stamp: string; value: T } | undefined;
  return () => {
    const stamp = paths.map(fileStamp).join();
    if (cached?.stamp !== stamp) cached = { stamp, value: load() };
    return cached.value;
  };
}

function fileStamp(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? 'none' : `${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}
