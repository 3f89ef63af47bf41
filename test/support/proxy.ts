import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';

/** Towards the server, or back to the client. */
export type Way = 'up' | 'down';

/** One connection through the proxy. */
export interface Link {
  /** Stops forwarding without closing, as a network does that has lost its way; what comes meanwhile is kept. */
  freeze(way?: Way): void;
  /** Closes both ends. */
  cut(): void;
  /** Ends both sides with RST instead of FIN. */
  reset(): void;
}

/** A TCP proxy that can be as bad as a network. Its settings hold for what passes from then on. */
export interface Proxy {
  readonly port: number;
  /** The same address, through the proxy. */
  readonly through: (url: string) => string;
  readonly links: ReadonlySet<Link>;
  /** Delay of every byte, each way. */
  latencyMs: number;
  /** Bytes per second, each way and connection; 0 for no limit. */
  bytesPerSecond: number;
  /** Sees what a client sends before it is forwarded. */
  onRequest: ((chunk: Buffer, link: Link) => void) | undefined;
  /** Sees what a server sends before it is forwarded, or kept. */
  onReply: ((chunk: Buffer, link: Link) => void) | undefined;
  /** Freezes every link, and those that are still to come. */
  freeze(): void;
  /** Forwards again, also what was kept. */
  thaw(): void;
  /** New links work, those that there are lead nowhere for ever. */
  strand(): void;
}

/** Starts a proxy before a port of this machine, which ends with the test. */
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
    this.join(client, this.up, (chunk) => proxy.onRequest?.(chunk, this));
    this.join(server, this.down, (chunk) => proxy.onReply?.(chunk, this));
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

  private join(from: Socket, direction: Direction, seen: (chunk: Buffer) => void): void {
    from.setNoDelay();
    from.on('data', (chunk: Buffer) => {
      seen(chunk);
      direction.pass(chunk.length, (to) => to.write(chunk));
    });
    from.on('end', () => direction.pass(0, (to) => to.end()));
    // The end of one side is news that travels like any other, and not at all when the way is frozen.
    from.on('error', () => direction.pass(0, () => this.cut()));
    from.on('close', () => direction.pass(0, () => this.cut()));
  }
}

/** What is on its way to one side, in order. */
class Direction {
  frozen = false;
  private tail = Promise.resolve();

  constructor(
    private readonly proxy: TcpProxy,
    private readonly to: Socket,
  ) {}

  pass(bytes: number, arrive: (to: Socket) => void): void {
    const due = performance.now() + this.proxy.latencyMs;
    this.tail = this.tail.then(async () => {
      const rate = this.proxy.bytesPerSecond;
      const wait = Math.max(due - performance.now(), rate > 0 ? (bytes / rate) * 1000 : 0);
      if (wait > 0) await sleep(wait);
      while (this.frozen) await sleep(10, undefined, { ref: false });
      if (!this.to.destroyed) arrive(this.to);
    });
  }
}
