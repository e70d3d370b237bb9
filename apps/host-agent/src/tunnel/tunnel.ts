import { constants, type ServerHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { WrennError } from '@wrenn/protocol/errors';
import type { GuestAddress } from '../vms/vm-manager.ts';

/** A guest on the same machine answers at once or not at all. */
const CONNECT_TIMEOUT_MS = 10_000;

export interface TunnelTarget {
  readonly vmId: string;
  readonly port: number;
}

/** Reads the authority of a CONNECT request, "{vm id}:{guest port}"; undefined when it has another form. */
export function parseAuthority(authority: string | undefined): TunnelTarget | undefined {
  const match = /^([a-z0-9-]+):([1-9]\d{0,4})$/.exec(authority ?? '');
  const port = Number(match?.[2]);
  return match?.[1] && port <= 65_535 ? { vmId: match[1], port } : undefined;
}

/** Finds a guest; throws a WrennError when there is none that can be reached. */
export type FindGuest = (vmId: string) => GuestAddress;

/**
 * Answers a CONNECT request with a byte tunnel to a port of a guest (RFC 9113, section 8.5). Each side's end of data
 * is passed on alone; a connection that breaks resets the stream, and the other way round. Refusals are an empty
 * answer: 400 for an authority of another form, 404 for an unknown VM, 503 for one that does not run, 502 for a port
 * on which nothing listens.
 */
export function openTunnel(stream: ServerHttp2Stream, authority: string | undefined, findGuest: FindGuest): void {
  stream.on('error', ignoreReset);
  const target = parseAuthority(authority);
  if (!target) {
    refuse(stream, 400);
    return;
  }
  let guest: GuestAddress;
  try {
    guest = findGuest(target.vmId);
  } catch (error) {
    refuse(stream, error instanceof WrennError && error.http === 404 ? 404 : 503);
    return;
  }
  const socket = connect({ host: guest.hostIp, port: target.port, noDelay: true, allowHalfOpen: true });
  const giveUp = setTimeout(() => socket.destroy(), CONNECT_TIMEOUT_MS);
  const cut = () => socket.destroy();
  guest.ended.addEventListener('abort', cut, { once: true });
  socket.once('connect', () => {
    clearTimeout(giveUp);
    if (stream.destroyed) {
      cut();
      return;
    }
    stream.respond({ ':status': 200 });
    join(socket, stream);
  });
  socket.on('error', () => {
    // What follows from it is done when the socket closes.
  });
  socket.once('close', () => {
    clearTimeout(giveUp);
    guest.ended.removeEventListener('abort', cut);
    if (stream.headersSent) endStream(stream);
    else refuse(stream, guest.ended.aborted ? 503 : 502);
  });
  stream.once('aborted', () => cutGuest(socket));
  stream.once('close', () => {
    if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) cutGuest(socket);
    else if (!socket.readableEnded || !socket.writableFinished) socket.destroySoon();
  });
}

/** `pipe` stops reading on one side while the other does not take more. */
function join(socket: Socket, stream: ServerHttp2Stream): void {
  socket.pipe(stream);
  stream.pipe(socket, { end: false });
  stream.once('end', () => {
    // Node ends a stream that was reset as well, and tells the code a moment later.
    setImmediate(() => {
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR) socket.end();
    });
  });
}

/** The guest must see that data is missing. A socket that was shut down already cannot be reset any more. */
function cutGuest(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** The guest's side is gone. Unless both ends came in order, the other side must see a broken connection. */
function endStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed || (stream.writableEnded && stream.readableEnded)) return;
  stream.close(constants.NGHTTP2_CONNECT_ERROR);
}

function refuse(stream: ServerHttp2Stream, status: number): void {
  if (stream.destroyed) return;
  stream.respond({ ':status': status }, { endStream: true });
  // Whatever was sent already has no reader.
  stream.resume();
}

function ignoreReset(): void {
  // The stream closes right after, and that is handled.
}
