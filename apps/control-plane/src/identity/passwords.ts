import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { WrennError } from '@wrenn/protocol/errors';

/** What scrypt takes to hash one password. */
export interface PasswordCost {
  /** Binary logarithm of scrypt's N; a hash takes 1024 × 2^logN bytes of memory at r = 8. */
  readonly logN: number;
  readonly r: number;
  readonly p: number;
}

/** One of the equal choices of OWASP's Password Storage Cheat Sheet: 32 MiB, some 0.2 s of one core. */
export const PASSWORD_COST: PasswordCost = { logN: 15, r: 8, p: 3 };

/** Of the four threads that Node has for files, names and hashes, hashes take at most half. */
const CONCURRENCY = 2;
/** Who comes when more than this wait would wait for longer than a login may take. */
const MAX_WAITING = 40;
const RETRY_AFTER_S = 5;
const SALT_BYTES = 16;
const HASH_BYTES = 32;

const scryptAsync = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt);

/** What comparing a password with a hash gave. */
export interface Comparison {
  readonly matches: boolean;
  /** Right, and hashed at another cost than hashes are made with now. */
  readonly isStale: boolean;
}

/** Hashes passwords with scrypt, a few at a time. A hash carries its own parameters and salt. */
export class Passwords {
  readonly #cost: PasswordCost;
  /** Of no password. What takes the place of a hash where there is none, so that it takes as long. */
  readonly #nobody: string;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(cost: PasswordCost = PASSWORD_COST) {
    this.#cost = cost;
    this.#nobody = encode(cost, randomBytes(SALT_BYTES), randomBytes(HASH_BYTES));
  }

  /** @throws WrennError `rate_limited` when too many wait already */
  async hash(password: string): Promise<string> {
    using _turn = await this.#turn();
    const salt = randomBytes(SALT_BYTES);
    return encode(this.#cost, salt, await derive(password, salt, this.#cost));
  }

  /**
   * Compares a password with a hash, or with nothing, which takes as long and never matches.
   *
   * @param findHash is asked when it is this password's turn: at most a few are compared between it and the answer
   * @throws WrennError `rate_limited` when too many wait already
   */
  async compare(password: string, findHash: () => Promise<string | undefined>): Promise<Comparison> {
    using _turn = await this.#turn();
    const stored = await findHash();
    const { cost, salt, hash } = decode(stored ?? this.#nobody);
    const matches = timingSafeEqual(await derive(password, salt, cost), hash) && stored !== undefined;
    const { logN, r, p } = this.#cost;
    return { matches, isStale: matches && (cost.logN !== logN || cost.r !== r || cost.p !== p) };
  }

  async #turn(): Promise<Disposable> {
    if (this.#running >= CONCURRENCY) {
      if (this.#waiting.length >= MAX_WAITING) throw new WrennError('rate_limited', { retry_after_s: RETRY_AFTER_S });
      // Whoever ends hands its place on.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    return {
      [Symbol.dispose]: () => {
        const next = this.#waiting.shift();
        if (next) next();
        else this.#running -= 1;
      },
    };
  }
}

/** The same characters can be typed as different code points. */
function derive(password: string, salt: Buffer, { logN, r, p }: PasswordCost): Promise<Buffer> {
  const N = 2 ** logN;
  return scryptAsync(password.normalize('NFKC'), salt, HASH_BYTES, { N, r, p, maxmem: 256 * r * (N + p) });
}

function encode({ logN, r, p }: PasswordCost, salt: Buffer, hash: Buffer): string {
  return `$scrypt$ln=${logN},r=${r},p=${p}$${salt.toString('base64url')}$${hash.toString('base64url')}`;
}

function decode(text: string): { cost: PasswordCost; salt: Buffer; hash: Buffer } {
  const match = /^\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([\w-]+)\$([\w-]+)$/.exec(text);
  if (!match) throw new Error('a password hash of unknown form is in the database');
  const [logN, r, p] = match.slice(1, 4).map(Number);
  const [salt, hash] = match.slice(4).map((part) => Buffer.from(part, 'base64url'));
  if (logN === undefined || r === undefined || p === undefined || !salt || hash?.length !== HASH_BYTES)
    throw new Error('a password hash of unknown form is in the database');
  return { cost: { logN, r, p }, salt, hash };
}
