import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';

/** The direction of data: `up` to the server, `down` to the client. */
export type Way = 'up' | 'down';

/** One connection through the proxy. */
export interface Link {
  /** Stops forwarding without closing, like a network that drops packets. Data that arrives is kept. */
  freeze(way?: Way): void;
  /** Closes both ends. */
  cut(): void;
  /** Ends both sides with RST instead of FIN. */
  reset(): void;
}

/** A TCP proxy that simulates network failures. Its settings apply to data that arrives after they are set. */
export interface Proxy {
  readonly port: number;
  /** The URL with the address of the proxy. */
  readonly through: (url: string) => string;
  readonly links: ReadonlySet<Link>;
  /** The delay of every byte, in each direction. */
  latencyMs: number;
  /** Bytes per second, per direction and connection; 0 for no limit. */
  bytesPerSecond: number;
  /** Is called with data of a client before it is forwarded. */
  onRequest: ((chunk: Buffer, link: Link) => void) | undefined;
  /** Is called with data of a server before it is forwarded or kept. */
  onReply: ((chunk: Buffer, link: Link) => void) | undefined;
  /** Freezes all existing and future links. */
  freeze(): void;
  /** Resumes forwarding, including the kept data. */
  thaw(): void;
  /** Freezes the existing links permanently; new links work. */
  strand(): void;
}

/** Starts a proxy for a port of 127.0.0.1. It ends with the test. */
export async function startProxy(port: number): Promise<Proxy> {
  const proxy = new TcpProxy(port);
  await proxy.listen();
  onTestFinished(() => proxy.close());
  return proxy;
}

class TcpProxy implements Proxy {
  readonly links = new Set<TcpLink>();
  latencyMs = 0;
  bytesPerSecond = 0;
  frozen = false;
  onRequest: ((chunk: Buffer, link: Link) => void) | undefined;
  onReply: ((chunk: Buffer, link: Link) => void) | undefined;
  private readonly server = createServer({ allowHalfOpen: true }, (client) => {
    const server = createConnection({ host: '127.0.0.1', port: this.target, allowHalfOpen: true });
    this.links.add(new TcpLink(this, client, server));
  });

  constructor(private readonly target: number) {}

  listen(): Promise<void> {
    return new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  readonly through = (url: string) => Object.assign(new URL(url), { host: `127.0.0.1:${this.port}` }).href;

  freeze(): void {
    this.frozen = true;
    for (const link of this.links) link.freeze();
  }

  thaw(): void {
    this.frozen = false;
    for (const link of this.links) link.thaw();
  }

  strand(): void {
    this.frozen = false;
    for (const link of this.links) link.freeze();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const link of this.links) link.cut();
    await closed;
  }
}

class TcpLink implements Link {
  private readonly up: Direction;
  private readonly down: Direction;

  constructor(
    private readonly proxy: TcpProxy,
    private readonly client: Socket,
    private readonly server: Socket,
  ) {
    this.up = new Direction(proxy, server);
    this.down = new Direction(proxy, client);
    if (proxy.frozen) this.freeze();
    this.forward(client, this.up, (chunk) => proxy.onRequest?.(chunk, this));
    this.forward(server, this.down, (chunk) => proxy.onReply?.(chunk, this));
  }

  freeze(way?: Way): void {
    if (way !== 'down') this.up.frozen = true;
    if (way !== 'up') this.down.frozen = true;
  }

  thaw(): void {
    this.up.frozen = false;
    this.down.frozen = false;
  }

  cut(): void {
    this.client.destroy();
    this.server.destroy();
    this.proxy.links.delete(this);
  }

  reset(): void {
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
    this.proxy.links.delete(this);
  }

  private forward(from: Socket, direction: Direction, onData: (chunk: Buffer) => void): void {
    from.setNoDelay();
    from.on('data', (chunk: Buffer) => {
      onData(chunk);
      direction.pass(chunk.length, (to) => to.write(chunk));
    });
    from.on('end', () => direction.pass(0, (to) => to.end()));
    // The end of one side is forwarded in order like data, and not at all while the direction is frozen.
    from.on('error', () => direction.pass(0, () => this.cut()));
    from.on('close', () => direction.pass(0, () => this.cut()));
  }
}

/** The data on its way to one side, in order. */
class Direction {
  frozen = false;
  private tail = Promise.resolve();

  constructor(
    private readonly proxy: TcpProxy,
    private readonly to: Socket,
  ) {}

  pass(bytes: number, deliver: (to: Socket) => void): void {
    const due = performance.now() + this.proxy.latencyMs;
    this.tail = this.tail.then(async () => {
      const rate = this.proxy.bytesPerSecond;
      const wait = Math.max(due - performance.now(), rate > 0 ? (bytes / rate) * 1000 : 0);
      if (wait > 0) await sleep(wait);
      while (this.frozen) await sleep(10, undefined, { ref: false });
      if (!this.to.destroyed) deliver(this.to);
    });
  }
}
