import { createWriteStream, type WriteStream } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { limits } from '../limits.js';
import { fingerprintOf } from './credential.js';
import { jsonOr } from './json_text.js';

/** How a request ended. */
export type Ended =
  /** It is in progress. */
  | 'open'
  | 'completed'
  /** The client closed the connection before the response was complete. */
  | 'client closed'
  /** A fault closed or reset the connection, or held it until the time limit. */
  | 'fault'
  /** The fake provider was stopped. */
  | 'stopped';

/** One request, in the form in which the log file and `GET /_fake/log` have it. It never contains a key. */
export interface LoggedRequest {
  readonly id: number;
  /** When it arrived, in ISO 8601. */
  readonly at: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly provider: string | null;
  readonly api: string | null;
  /** The name of the model as it was sent, with its fault. */
  readonly model: string | null;
  readonly stream: boolean;
  /** The fingerprint of the key; null: it has none. */
  readonly key: string | null;
  readonly headers: Readonly<Record<string, string>>;
  /** The JSON of the body; its beginning as text if it is too long for the log or not JSON; null: it has none. */
  readonly body: unknown;
  readonly body_bytes: number;
  /** The fault that was applied, with its options. */
  readonly fault: string | null;
  /** The status that was sent; null: none. */
  readonly status: number | null;
  /** Bytes of the body that were sent, and the tokens in them. */
  readonly response_bytes: number;
  readonly tokens: number;
  readonly duration_ms: number | null;
  readonly ended: Ended;
}

/** An entry that is still being filled in. */
export type OpenEntry = { -readonly [Field in keyof LoggedRequest]: LoggedRequest[Field] };

/** The headers that the log contains. None of them can contain a key. */
const LOGGED_HEADERS = [
  'accept',
  'anthropic-beta',
  'anthropic-version',
  'content-type',
  'idempotency-key',
  'traceparent',
  'user-agent',
  'x-fake-fault',
  'x-stainless-retry-count',
];
const HEADER_CHARACTERS = 200;
/** About the size of an entry without its body. */
const ENTRY_BYTES = 1000;

/** What differs between two uses of a log. */
export interface LogOptions {
  /** A file to which every finished request is appended as a line of JSON. */
  readonly file?: string | undefined;
  readonly onFinished?: ((entry: LoggedRequest) => void) | undefined;
}

/** The requests of a fake provider, the newest last. The oldest are removed when there are too many. */
export class RequestLog {
  private entries: OpenEntry[] = [];
  /** The sizes of the entries that are in the log. */
  private readonly sizes = new Map<OpenEntry, number>();
  private bytes = 0;
  private removed = 0;
  private unwritten = 0;
  private readonly stream: WriteStream | undefined;

  constructor(private readonly options: LogOptions = {}) {
    // Only the user may read it, because it contains prompts.
    this.stream = options.file === undefined ? undefined : createWriteStream(options.file, { flags: 'a', mode: 0o600 });
    // A full disk must not end the process; the lines that are lost are counted.
    this.stream?.on('error', () => {
      this.unwritten++;
    });
  }

  /** Resolves when the file is open. Rejects when it cannot be written. */
  ready(): Promise<void> {
    const { stream } = this;
    if (!stream) return Promise.resolve();
    return new Promise((resolve, reject) => {
      stream.once('open', () => resolve());
      stream.once('error', reject);
    });
  }

  get all(): readonly LoggedRequest[] {
    return this.entries;
  }

  /** How many requests were removed from memory, and how many lines could not be written to the file. */
  get lost(): { readonly removed: number; readonly unwritten: number } {
    return { removed: this.removed, unwritten: this.unwritten };
  }

  add(entry: OpenEntry): void {
    this.entries.push(entry);
    this.count(entry, ENTRY_BYTES);
  }

  /** Stores a body in an entry, without the key, and bounded. */
  setBody(entry: OpenEntry, text: string, key: string | undefined): void {
    const { loggedBodyBytes } = limits.fakeProvider;
    const safe = withoutKey(text, key);
    entry.body = safe.length > loggedBodyBytes ? safe.slice(0, loggedBodyBytes).toWellFormed() : loggedBody(safe);
    // A request can be removed from the log before its body has arrived.
    if (this.sizes.has(entry)) this.count(entry, ENTRY_BYTES + Math.min(safe.length, loggedBodyBytes));
  }

  finish(entry: OpenEntry): void {
    const { stream } = this;
    this.options.onFinished?.(entry);
    if (!stream) return;
    if (stream.writableLength > limits.fakeProvider.logFileBufferBytes) this.unwritten++;
    else stream.write(`${JSON.stringify(entry)}\n`);
  }

  clear(): void {
    this.entries = [];
    this.sizes.clear();
    this.bytes = 0;
    this.removed = 0;
  }

  close(): Promise<void> {
    const { stream } = this;
    if (!stream || stream.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      stream.once('close', () => resolve());
      stream.end();
    });
  }

  /** Counts the size of an entry, and removes the oldest entries when there is too much. */
  private count(entry: OpenEntry, size: number): void {
    this.bytes += size - (this.sizes.get(entry) ?? 0);
    this.sizes.set(entry, size);
    const { loggedRequests, logBytes } = limits.fakeProvider;
    while (this.entries.length > 1 && (this.entries.length > loggedRequests || this.bytes > logBytes)) {
      const oldest = this.entries.shift() as OpenEntry;
      this.bytes -= this.sizes.get(oldest) ?? 0;
      this.sizes.delete(oldest);
      this.removed++;
    }
  }
}

/** A body as JSON; as text if it is not JSON, and null if it is empty. */
const loggedBody = (text: string): unknown => (text === '' ? null : (jsonOr(text) ?? text));

/** A text in which the key is replaced by its fingerprint. */
export const withoutKey = (text: string, key: string | undefined): string =>
  key ? text.replaceAll(key, fingerprintOf(key)) : text;

/** The headers of a request that the log contains. */
export function loggedHeaders(headers: IncomingHttpHeaders, key: string | undefined): Record<string, string> {
  const found = LOGGED_HEADERS.flatMap((name) => {
    const value = headers[name];
    return typeof value === 'string' ? [[name, withoutKey(value, key).slice(0, HEADER_CHARACTERS)] as const] : [];
  });
  return Object.fromEntries(found);
}
