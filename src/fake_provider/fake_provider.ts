import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { limits } from '../limits.js';
import { BodyAborted, BodyReader, BodyTooLarge } from './body.js';
import { type Clock, systemClock } from './clock.js';
import { CONTROL_PATH, control } from './control.js';
import { Exchange, openEntry, type Shared } from './exchange.js';
import { baseUrlOf, type ProviderName } from './providers.js';
import { type LoggedRequest, type OpenEntry, RequestLog } from './request_log.js';
import { StoredResponses } from './requests/stored_responses.js';
import { jsonResponse } from './responses/response.js';
import { Rules } from './rules.js';
import { readScript, type Script, type ScriptInput } from './script.js';
import { Sender } from './send.js';

export interface FakeProviderOptions {
  /** 0: a free port. */
  readonly port?: number;
  /** Default: 127.0.0.1. */
  readonly host?: string;
  /** Faults, responses, models and keys. Throws a ScriptError when it is not valid. */
  readonly script?: ScriptInput;
  /** The clock of all delays and time windows; tests can pass a VirtualClock. */
  readonly clock?: Clock;
  /** The time until the headers of a response, and between two tokens of a stream, in ms. */
  readonly latencyMs?: number;
  readonly tokenDelayMs?: number;
  /** Whether requests without a key are rejected. The keys of a script are required in any case. */
  readonly requireKey?: boolean;
  /** A file to which each finished request is appended as a line of JSON. */
  readonly logFile?: string;
  /** Called when a request has ended. */
  readonly onRequest?: (request: LoggedRequest) => void;
}

/** A running fake provider. */
export interface FakeProvider {
  /** `http://127.0.0.1:<port>`, without a path. */
  readonly url: string;
  readonly port: number;
  /** The base URL of a provider. The name distinguishes several providers of one kind. */
  baseUrl(provider: ProviderName, name?: string): string;
  /** The requests so far, the oldest first; at most the newest 1 000. Entries are filled in until the request ends. */
  readonly requests: readonly LoggedRequest[];
  clearRequests(): void;
  /** Replaces the script, and begins to count attempts and time anew. Throws a ScriptError. */
  setFaults(script: ScriptInput): void;
  /** Open connections. */
  readonly connections: number;
  /** Ends all requests and frees the port. */
  close(): Promise<void>;
}

/** Starts a fake provider. Rejects when the port or the log file cannot be used. */
export async function startFakeProvider(options: FakeProviderOptions = {}): Promise<FakeProvider> {
  const { port = 0, host = '127.0.0.1', script = {}, clock = systemClock } = options;
  const service = new FakeService(readScript(script), clock, options);
  await service.log.ready();
  try {
    await listen(service.server, port, host);
  } catch (error) {
    await service.log.close();
    throw error;
  }
  const bound = (service.server.address() as AddressInfo).port;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${bound}`;
  return {
    url,
    port: bound,
    baseUrl: (provider, name) => baseUrlOf(url, provider, name),
    get requests() {
      return service.log.all;
    },
    clearRequests: () => service.log.clear(),
    setFaults: (changed) => service.setScript(readScript(changed)),
    get connections() {
      return service.connections;
    },
    close: () => service.close(),
  };
}

const listen = (server: Server, port: number, host: string) =>
  new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      // A connection that cannot be accepted, for lack of file descriptors, must not end the process.
      server.off('error', reject).on('error', () => {});
      resolve();
    });
  });

/** An idle connection lives longer than that of a client, so that no request meets a closing connection. */
const KEEP_ALIVE_MS = 60_000;

class FakeService {
  readonly server: Server;
  readonly log: RequestLog;
  connections = 0;
  private rules: Rules;
  private readonly shared: Shared;
  private count = 0;
  /** Requests that have not ended. */
  private open = 0;
  private isClosing = false;

  constructor(
    script: Script,
    private readonly clock: Clock,
    options: FakeProviderOptions,
  ) {
    this.rules = new Rules(script, clock);
    this.log = new RequestLog({ file: options.logFile, onFinished: options.onRequest });
    this.shared = {
      clock,
      log: this.log,
      bodies: new BodyReader(),
      stored: new StoredResponses(),
      rules: () => this.rules,
      latencyMs: options.latencyMs ?? 0,
      tokenDelayMs: options.tokenDelayMs ?? 0,
      requireKey: options.requireKey ?? false,
    };
    this.server = this.createServer();
  }

  setScript(script: Script): void {
    this.rules = new Rules(script, this.clock);
  }

  async close(): Promise<void> {
    this.isClosing = true;
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await closed;
    // The server is closed before the last responses and connections have emitted their events.
    while (this.open > 0 || this.connections > 0) await new Promise(setImmediate);
    await this.log.close();
  }

  private createServer(): Server {
    const { requestMs, connections } = limits.fakeProvider;
    const server = createServer(
      { requestTimeout: requestMs, keepAliveTimeout: KEEP_ALIVE_MS, maxHeaderSize: limits.maxHttpHeaderBytes },
      (request, response) => void this.handle(request, response),
    );
    server.maxConnections = connections;
    return server.on('connection', (socket) => {
      this.connections++;
      socket.once('close', () => {
        this.connections--;
      });
    });
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A client that closes its connection is normal; how the request ended is in the log.
    request.on('error', () => {});
    response.on('error', () => {});
    const path = (request.url ?? '').replace(/[?#].*$/s, '');
    try {
      if (path.startsWith(CONTROL_PATH)) await this.handleControl(request, response, path);
      else await this.handleProvider(request, response, path);
    } catch (error) {
      if (error instanceof BodyAborted) return;
      // A defect of the fake provider must not look like a fault of the script.
      process.emitWarning(error as Error);
      response.destroy();
    }
  }

  private async handleControl(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const controlled = {
      log: this.log,
      script: () => this.rules.script,
      setScript: (script: Script) => this.setScript(script),
      readBody: (from: IncomingMessage) => this.shared.bodies.read(from, limits.fakeProvider.scriptBytes),
    };
    const result = await control(controlled, request, path).catch((error) => {
      if (!(error instanceof BodyTooLarge)) throw error;
      return jsonResponse(413, {
        error: { message: `the script: has more than ${limits.fakeProvider.scriptBytes} bytes` },
      });
    });
    const text = result.frames[0]?.text ?? '';
    response.writeHead(result.status, result.headers).end(text);
  }

  private async handleProvider(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const number = ++this.count;
    const entry = openEntry(this.shared, request, path, number);
    const started = this.clock.now();
    this.log.add(entry);
    this.open++;
    response.once('close', () => this.finish(entry, response, started));
    const sender = new Sender(response, this.clock, entry);
    const exchange = new Exchange(this.shared, { request, response, number, path, entry });
    const { steps, headers } = await exchange.respond();
    await sender.run(steps, headers);
  }

  private finish(entry: OpenEntry, response: ServerResponse, started: number): void {
    entry.duration_ms = Math.round(this.clock.now() - started);
    if (response.writableFinished) entry.ended = 'completed';
    else if (entry.ended === 'open') entry.ended = this.isClosing ? 'stopped' : 'client closed';
    this.log.finish(entry);
    this.open--;
  }
}
