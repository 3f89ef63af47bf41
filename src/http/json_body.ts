import { isUtf8 } from 'node:buffer';
import { limits } from '../limits.js';

/** The reason why a JSON body is not parsed. */
export type BodyProblem =
  | { readonly kind: 'malformed'; readonly description: string }
  /** The body has too many keys and values; `path` leads to the field at which the limit was exceeded. */
  | { readonly kind: 'tooMany'; readonly path: readonly string[] };

/**
 * Checks the bytes of a JSON body before it is parsed: UTF-8, the number of keys and values, the nesting depth, and
 * duplicate keys in an object, which parsers interpret differently. Its time is bounded by the length of the body and
 * it creates only the keys, while parsing two million values blocks all other calls. It does not check that the body is
 * valid JSON; the parser does.
 */
export function bodyProblem(bytes: Buffer): BodyProblem | undefined {
  if (!isUtf8(bytes)) return { kind: 'malformed', description: 'must be UTF-8' };
  try {
    new JsonScan(bytes).run();
    return undefined;
  } catch (error) {
    if (error instanceof Stop) return error.problem;
    throw error;
  }
}

class Stop extends Error {
  constructor(readonly problem: BodyProblem | undefined) {
    super();
  }
}

const malformed = (description: string) => new Stop({ kind: 'malformed', description });
/** The body is not valid JSON; the parser reports the problem. */
const notJson = () => new Stop(undefined);

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const isSpace = (byte: number | undefined) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

class JsonScan {
  private at = 0;
  private remainingValues: number = limits.maxRequestFields;
  private readonly path: string[] = [];

  constructor(private readonly bytes: Buffer) {}

  run(): void {
    this.value(0);
  }

  private value(depth: number): void {
    this.take();
    const first = this.next();
    if (first === OPEN_OBJECT) this.object(depth + 1);
    else if (first === OPEN_ARRAY) this.array(depth + 1);
    else if (first === QUOTE) this.string();
    else this.literal();
  }

  private object(depth: number): void {
    this.enter(depth);
    const keys = new Set<string>();
    while (this.next() !== CLOSE_OBJECT) {
      if (this.next() !== QUOTE) throw notJson();
      this.take();
      const key = this.key();
      if (keys.has(key)) throw malformed('must not name a key twice');
      keys.add(key);
      if (this.next() !== COLON) throw notJson();
      this.at++;
      this.path.push(key);
      this.value(depth);
      this.path.pop();
      if (this.next() === COMMA) this.at++;
      else if (this.next() !== CLOSE_OBJECT) throw notJson();
    }
    this.at++;
  }

  private array(depth: number): void {
    this.enter(depth);
    while (this.next() !== CLOSE_ARRAY) {
      this.value(depth);
      if (this.next() === COMMA) this.at++;
      else if (this.next() !== CLOSE_ARRAY) throw notJson();
    }
    this.at++;
  }

  private enter(depth: number): void {
    if (depth > limits.maxBodyDepth) throw malformed(`must not nest deeper than ${limits.maxBodyDepth} levels`);
    this.at++;
  }

  /** Skips a string including its quotes; returns whether it has escapes. */
  private string(): boolean {
    const { bytes } = this;
    let escaped = false;
    for (this.at++; bytes[this.at] !== QUOTE; this.at++) {
      if (this.at >= bytes.length) throw notJson();
      if (bytes[this.at] !== BACKSLASH) continue;
      escaped = true;
      this.at++;
    }
    this.at++;
    return escaped;
  }

  private key(): string {
    const start = this.at;
    const escaped = this.string();
    const text = this.bytes.toString('utf8', start, this.at);
    if (!escaped) return text.slice(1, -1);
    try {
      return JSON.parse(text) as string;
    } catch {
      throw notJson();
    }
  }

  /** Skips a number, true, false, null or an invalid literal. */
  private literal(): void {
    const { bytes } = this;
    const start = this.at;
    for (; this.at < bytes.length; this.at++) {
      const byte = bytes[this.at];
      if (byte === COMMA || byte === CLOSE_ARRAY || byte === CLOSE_OBJECT || isSpace(byte)) break;
    }
    if (this.at === start) throw notJson();
  }

  /** The next byte that is not white space. */
  private next(): number | undefined {
    while (isSpace(this.bytes[this.at])) this.at++;
    return this.bytes[this.at];
  }

  private take(): void {
    if (--this.remainingValues < 0) throw new Stop({ kind: 'tooMany', path: [...this.path] });
  }
}
