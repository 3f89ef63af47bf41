/*
 * A JSON reader that keeps the written form of numbers, because numbers of JavaScript are not exact. It uses no recursion,
 * and reads in steps, so that the caller can do other work between two steps.
 */

/** A number in its written form, so that no digits are lost. */
export class JsonNumber {
  constructor(readonly text: string) {}
}

/** The members of an object. */
export class JsonObject {
  readonly members = new Map<string, JsonValue>();
  /** The names that occur more than once. JSON readers differ in which of these members they use. */
  repeated: Set<string> | undefined;

  set(name: string, value: JsonValue): void {
    if (this.members.has(name)) {
      this.repeated ??= new Set();
      this.repeated.add(name);
    }
    this.members.set(name, value);
  }
}

/** Replaces a value that is nested too deep. */
export const TOO_DEEP = Symbol('nested too deep');

export type JsonValue = JsonObject | readonly JsonValue[] | JsonNumber | string | boolean | null | typeof TOO_DEEP;

/** A text that is not JSON, or that has too many values. */
export class JsonError extends Error {}

interface Frame {
  readonly isObject: boolean;
  /** Adds a value to the container; absent in a container that is nested too deep. */
  readonly add: ((value: JsonValue) => void) | undefined;
}

export interface JsonLimits {
  readonly depth: number;
  readonly values: number;
}

type Expected = 'value' | 'first item' | 'name' | 'first name' | 'separator';

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const LITERALS: readonly (readonly [string, JsonValue])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
];

/** Reads one JSON text. */
export class JsonReader {
  private at = 0;
  private values = 0;
  private expected: Expected = 'value';
  private name = '';
  private root: JsonValue | undefined;
  private readonly stack: Frame[] = [];

  constructor(
    private readonly text: string,
    private readonly limits: JsonLimits,
  ) {}

  /** Reads at most this many tokens. Returns the value of the text when it has been read, undefined before. */
  step(tokens: number): JsonValue | undefined {
    for (let count = 0; count < tokens; count++) {
      this.match(SPACE);
      if (this.root !== undefined && this.stack.length === 0) {
        if (this.at < this.text.length) throw this.unexpected();
        return this.root;
      }
      this.token();
    }
    return undefined;
  }

  private token(): void {
    const next = this.text[this.at];
    if (this.expected === 'separator') this.separator(next);
    else if (this.expected === 'first name' && next === '}') this.close();
    else if (this.expected === 'first item' && next === ']') this.close();
    else if (this.expected === 'name' || this.expected === 'first name') this.memberName();
    else this.value(next);
  }

  private separator(next: string | undefined): void {
    const isObject = this.stack.at(-1)?.isObject;
    if (next === (isObject ? '}' : ']')) this.close();
    else if (next === ',') {
      this.at++;
      this.expected = isObject ? 'name' : 'value';
    } else throw this.unexpected();
  }

  private close(): void {
    this.at++;
    this.stack.pop();
    this.expected = 'separator';
  }

  private memberName(): void {
    this.name = this.string();
    this.match(SPACE);
    if (this.text[this.at] !== ':') throw this.unexpected();
    this.at++;
    this.expected = 'value';
  }

  private value(next: string | undefined): void {
    if (++this.values > this.limits.values) throw new JsonError(`must have at most ${this.limits.values} values`);
    if (next === '{' || next === '[') this.open(next === '{');
    else this.scalar(next);
  }

  private scalar(next: string | undefined): void {
    const literal = LITERALS.find(([word]) => this.text.startsWith(word, this.at));
    if (next === '"') this.add(this.string());
    else if (literal) {
      this.at += literal[0].length;
      this.add(literal[1]);
    } else {
      const number = this.match(NUMBER);
      if (number === '') throw this.unexpected();
      this.add(new JsonNumber(number));
    }
    this.expected = 'separator';
  }

  private open(isObject: boolean): void {
    this.at++;
    this.expected = isObject ? 'first name' : 'first item';
    if (this.stack.length >= this.limits.depth) {
      this.add(TOO_DEEP);
      this.stack.push({ isObject, add: undefined });
    } else if (isObject) {
      const object = new JsonObject();
      this.add(object);
      this.stack.push({ isObject, add: (value) => object.set(this.name, value) });
    } else {
      const items: JsonValue[] = [];
      this.add(items);
      this.stack.push({ isObject, add: (value) => void items.push(value) });
    }
  }

  private add(value: JsonValue): void {
    const parent = this.stack.at(-1);
    if (!parent) this.root = value;
    else parent.add?.(value);
  }

  private string(): string {
    const start = this.at;
    if (this.text[start] !== '"') throw this.unexpected();
    let at = start + 1;
    let isPlain = true;
    for (; this.text[at] !== '"'; at++) {
      if (at >= this.text.length) throw new JsonError(`must be JSON; the string at character ${start} has no end`);
      if (this.text[at] === '\\') at++;
      if (this.text[at] === undefined || (this.text[at] as string) < ' ' || this.text[at - 1] === '\\') isPlain = false;
    }
    this.at = at + 1;
    if (isPlain) return this.text.slice(start + 1, at);
    try {
      return JSON.parse(this.text.slice(start, at + 1)) as string;
    } catch {
      throw new JsonError(`must be JSON; the string at character ${start} is not valid`);
    }
  }

  private match(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const [found = ''] = pattern.exec(this.text) ?? [];
    this.at += found.length;
    return found;
  }

  private unexpected(): JsonError {
    const problem = this.at >= this.text.length ? 'it ends too early' : `character ${this.at} is not expected`;
    return new JsonError(`must be JSON; ${problem}`);
  }
}
