import type { State } from '../../domain/state.js';

/** The encoding of a row, and the inputs besides the row that it was made from. */
interface Entry<Encoded> {
  readonly encoded: Encoded;
  readonly identity: State['identity'];
  readonly encryption: State['encryption'];
  readonly inputs: readonly unknown[];
  /** The end of the validity, in ms since the epoch. */
  readonly expiresAt: number;
}

export interface EncodeOnceOptions<Row, Detail, Encoded> {
  encode(state: State, row: Row, detail: Detail): Encoded;
  /** What `encode` reads besides the row, the identity of the store and the encryption state. Compared with `===`. */
  readonly inputs: readonly ((state: State, detail: Detail) => unknown)[];
  /** How long the encoding of unchanged inputs may be used, in ms; by default without a limit. */
  readonly maxAgeMs?: number;
}

/**
 * Encodes each row once, while the row and all inputs are unchanged. Rows are immutable: a change replaces the row, and
 * the encoding is garbage-collected with the old row. A cache hit allocates nothing, because every read has one.
 */
export class EncodeOnce<Row extends object, Detail, Encoded = Uint8Array> {
  private readonly entries = new WeakMap<Row, Entry<Encoded>>();

  constructor(private readonly options: EncodeOnceOptions<Row, Detail, Encoded>) {}

  /** @param detail what `encode` needs besides the state and the row. */
  get(state: State, row: Row, detail: Detail): Encoded {
    const entry = this.entries.get(row);
    if (entry && this.isCurrent(entry, state, detail)) return entry.encoded;
    const { encode, inputs, maxAgeMs = Number.POSITIVE_INFINITY } = this.options;
    const { identity, encryption } = state;
    const expiresAt = maxAgeMs === Number.POSITIVE_INFINITY ? maxAgeMs : Date.now() + maxAgeMs;
    const encoded = encode(state, row, detail);
    const values = inputs.map((read) => read(state, detail));
    this.entries.set(row, { encoded, identity, encryption, inputs: values, expiresAt });
    return encoded;
  }

  private isCurrent(entry: Entry<Encoded>, state: State, detail: Detail): boolean {
    if (entry.identity !== state.identity || entry.encryption !== state.encryption) return false;
    const { inputs } = this.options;
    for (let at = 0; at < inputs.length; at++) if (entry.inputs[at] !== inputs[at]?.(state, detail)) return false;
    return entry.expiresAt === Number.POSITIVE_INFINITY || Date.now() < entry.expiresAt;
  }
}
