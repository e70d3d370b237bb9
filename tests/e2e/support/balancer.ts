import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** What stands before several servers: each connection goes to the next of them that takes it. */
export class Balancer implements AsyncDisposable {
  readonly #server: Server;
  readonly #ports: readonly number[];
  readonly #sockets = new Set<Socket>();
  #turn = 0;

  private constructor(ports: readonly number[]) {
    this.#ports = ports;
    this.#server = createServer((client) => this.#carry(client));
  }

  /** Listens on all addresses of this machine, for servers at these ports of it. */
  static async start(ports: readonly number[]): Promise<Balancer> {
    const balancer = new Balancer(ports);
    balancer.#server.listen(0, '0.0.0.0');
    await once(balancer.#server, 'listening');
    return balancer;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #carry(client: Socket): void {
    this.#keep(client);
    const first = this.#turn++;
    const ports = this.#ports.map((_, i) => this.#ports[(first + i) % this.#ports.length] as number);
    const tryNext = () => {
      const port = ports.shift();
      if (port === undefined || client.destroyed) {
        client.destroy();
        return;
      }
      const server = this.#keep(connect(port, '127.0.0.1'));
      server.once('error', tryNext);
      server.once('connect', () => {
        server.off('error', tryNext);
        client.once('close', () => server.destroy());
        server.once('close', () => client.destroy());
        client.pipe(server).pipe(client);
      });
    };
    tryNext();
  }

  /** A connection that breaks is closed; that is all there is to know of it. */
  #keep(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
