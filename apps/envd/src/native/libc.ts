import { constants } from 'node:os';
import { loadNative } from './load-native.ts';

type Koffi = typeof import('koffi');

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const F_SETOWN = 8;
const FD_CLOEXEC = 1;
const O_ASYNC = 0o20000;

/** A system call that the kernel refused. `code` is the errno's name, as on Node's own errors. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  readonly code: string;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = errnoName(errno);
    super(`${syscall} failed: ${code}`);
    this.code = code;
    this.syscall = syscall;
  }
}

function errnoName(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
}

let bound: ReturnType<typeof bind> | undefined;

function libc(): ReturnType<typeof bind> {
  bound ??= bind(loadNative('koffi') as Koffi);
  return bound;
}

/** Binds lazily: under emulation the first call of each function costs a few milliseconds that /health need not pay. */
function bind(koffi: Koffi) {
  const library = koffi.load(null);
  const functions = new Map<string, (...args: unknown[]) => number | bigint>();

  function call(name: string, definition: string, args: unknown[]): number {
    let fn = functions.get(name);
    if (fn === undefined) {
      fn = library.func(definition);
      functions.set(name, fn);
    }
    const result = Number(fn(...args));
    if (result < 0) throw new SystemCallError(name, koffi.errno());
    return result;
  }

  function callAsync(definition: string, args: unknown[]): Promise<void> {
    return new Promise((resolve, reject) => {
      library.func(definition).async(...args, (error: unknown) => (error ? reject(error) : resolve()));
    });
  }

  return { call, callAsync };
}

/** A real pipe, both ends close-on-exec. Node's own "pipes" are sockets, which break programs that open /dev/stdout. */
export function createPipe(): { readFd: number; writeFd: number } {
  const fds: [number, number] = [-1, -1];
  libc().call('pipe2', 'int pipe2(_Out_ int *fds, int flags)', [fds, O_CLOEXEC]);
  return { readFd: fds[0], writeFd: fds[1] };
}

function fcntl(fd: number, command: number, argument: number): number {
  return libc().call('fcntl', 'int fcntl(int fd, int command, int argument)', [fd, command, argument]);
}

export function setCloseOnExec(fd: number): void {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** Makes the kernel send SIGIO to this process whenever the descriptor becomes readable. */
export function signalWhenReadable(fd: number): void {
  fcntl(fd, F_SETOWN, process.pid);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_ASYNC);
}

export function inotifyInit(): number {
  return libc().call('inotify_init1', 'int inotify_init1(int flags)', [O_NONBLOCK | O_CLOEXEC]);
}

/** @returns the watch descriptor; the same one again for the same directory */
export function inotifyAddWatch(fd: number, path: string, mask: number): number {
  return libc().call('inotify_add_watch', 'int inotify_add_watch(int fd, const char *path, uint32_t mask)', [
    fd,
    path,
    mask,
  ]);
}

export function inotifyRemoveWatch(fd: number, watch: number): void {
  libc().call('inotify_rm_watch', 'int inotify_rm_watch(int fd, int watch)', [fd, watch]);
}

/** Names of a file's extended attributes; the file is given by path (links are followed) or by descriptor. */
export function listXattrs(file: string | number): string[] {
  const size = xattrList(file, null, 0);
  if (size === 0) return [];
  const buffer = Buffer.alloc(size);
  return buffer
    .subarray(0, xattrList(file, buffer, size))
    .toString('utf8')
    .split('\0')
    .filter(Boolean);
}

function xattrList(file: string | number, buffer: Buffer | null, size: number): number {
  return typeof file === 'number'
    ? libc().call('flistxattr', 'long flistxattr(int fd, void *list, size_t size)', [file, buffer, size])
    : libc().call('listxattr', 'long listxattr(const char *path, void *list, size_t size)', [file, buffer, size]);
}

export function getXattr(path: string, name: string): Buffer {
  const definition = 'long getxattr(const char *path, const char *name, void *value, size_t size)';
  const size = libc().call('getxattr', definition, [path, name, null, 0]);
  if (size === 0) return Buffer.alloc(0);
  const buffer = Buffer.alloc(size);
  return buffer.subarray(0, libc().call('getxattr', definition, [path, name, buffer, size]));
}

export function setXattr(fd: number, name: string, value: Buffer): void {
  libc().call('fsetxattr', 'int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)', [
    fd,
    name,
    value,
    value.length,
    0,
  ]);
}

export function removeXattr(fd: number, name: string): void {
  libc().call('fremovexattr', 'int fremovexattr(int fd, const char *name)', [fd, name]);
}

/** Runs `work` with the rights of a user on files: what it makes is theirs. Needs root. */
export function asFileUser<T>(uid: number, work: () => T): T {
  const set = (id: number) => libc().call('setfsuid', 'int setfsuid(uint32_t uid)', [id]);
  set(uid);
  try {
    return work();
  } finally {
    set(0);
  }
}

/** Sets the wall clock. Needs root. */
export function setWallClock(unixMs: number): void {
  const CLOCK_REALTIME = 0;
  const seconds = Math.floor(unixMs / 1000);
  const timespec = BigInt64Array.of(BigInt(seconds), BigInt(Math.round((unixMs - seconds * 1000) * 1e6)));
  libc().call('clock_settime', 'int clock_settime(int clock, const void *time)', [CLOCK_REALTIME, timespec]);
}

export function setHostName(name: string): void {
  libc().call('sethostname', 'int sethostname(const char *name, size_t length)', [name, Buffer.byteLength(name)]);
}

/** An ioctl whose argument is a buffer, or none. */
export function ioctl(fd: number, request: number, argument: Buffer | null): void {
  libc().call('ioctl', 'int ioctl(int fd, unsigned long request, void *argument)', [fd, request, argument]);
}

/** Writes every dirty page to the disks, off the event loop. */
export function syncFileSystems(): Promise<void> {
  return libc().callAsync('void sync()', []);
}
