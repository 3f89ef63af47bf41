import type { Output } from '../../admin/protocol.js';

/** Prints results to standard output, and progress and errors to standard error. */
export const terminal: Output = {
  out: (text) => void process.stdout.write(`${text}\n`),
  err: (text) => void process.stderr.write(`${text}\n`),
};

/** Characters that a terminal interprets, reorders or does not show. */
const UNSAFE =
  /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\u{e0001}-\u{e007f}]|\p{Cs}|\u00ad/gu;
const WIDE =
  /[\p{sc=Han}\p{sc=Hangul}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Bopomofo}\p{sc=Yi}\u3000-\u303e\uff01-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}|\ufe0f/u;
const NO_WIDTH = /^[\p{Mn}\p{Me}\p{Cf}]+$/u;
const graphemes = new Intl.Segmenter();

/** Escapes control characters, so that data cannot control the terminal. */
export function visible(data: string): string {
  return data.replace(UNSAFE, (character) => {
    if (character === '\n') return '\\n';
    if (character === '\t') return '\\t';
    return `\\u{${character.codePointAt(0)?.toString(16)}}`;
  });
}

/** The width of a text in terminal columns. */
export function widthOf(data: string): number {
  let width = 0;
  for (const { segment } of graphemes.segment(data)) width += WIDE.test(segment) ? 2 : NO_WIDTH.test(segment) ? 0 : 1;
  return width;
}

/** Truncates a text to a maximum length. */
export const cut = (data: string, maxLength: number): string =>
  data.length <= maxLength
    ? data
    : `${data
        .slice(0, maxLength - 1)
        .toWellFormed()
        .replace(/\ufffd$/, '')}…`;

/** The text of a table cell; a dash when it is empty. */
const cellOf = (data: string) => visible(data) || '-';

export const pad = (data: string, width: number): string => data + ' '.repeat(Math.max(0, width - widthOf(data)));

/** Formats rows as aligned columns with a header. */
export function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [heads, ...rows.map((row) => row.map(cellOf))];
  const widths = heads.map((_, column) => Math.max(...all.map((row) => widthOf(row[column] ?? ''))));
  return all
    .map((row) =>
      row
        .map((cell, column) => pad(cell, widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

type Line = readonly [name: string, value: string];

/** A titled group of fields, one line each. */
export type Group = readonly [title: string, lines: readonly Line[]];

export function record(groups: readonly Group[]): string {
  const width = Math.max(...groups.flatMap(([, lines]) => lines.map(([name]) => widthOf(name))));
  return groups
    .map(([title, lines]) =>
      [visible(title), ...lines.map(([name, value]) => `  ${pad(name, width)}  ${cellOf(value)}`)].join('\n'),
    )
    .join('\n\n');
}

/** A field value as text; empty when it is absent. */
export function formatValue(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (value instanceof Date) return moment(value);
  if (Array.isArray(value)) return value.map(formatValue).join(', ');
  return String(value);
}

/** The lines of a record, from the values of a message. */
export const lines = (...all: readonly (readonly [name: string, value: unknown])[]): Line[] =>
  all.map(([name, value]) => [name, formatValue(value)]);

interface Recorded {
  readonly created_at?: Date | undefined;
  readonly updated_at?: Date | undefined;
  readonly revision: bigint;
  readonly etag: string;
}

/** The group of fields that every resource has. */
export const recordOf = (row: Recorded, ...more: readonly (readonly [name: string, value: unknown])[]): Group => [
  'Record',
  lines(
    ['created', moment(row.created_at)],
    ['updated', moment(row.updated_at)],
    ['revision', row.revision],
    ['etag', row.etag],
    ...more,
  ),
];

/** An enum value without its prefix, in lower case: `API_KEY_STATE_SET` is `set`. */
export const small = (value: string, prefix: string): string =>
  value.replace(prefix, '').toLowerCase().replaceAll('_', '-');

/** A time in UTC, in seconds. */
export const moment = (time: Date | undefined): string =>
  time && !Number.isNaN(time.getTime()) ? time.toISOString().replace(/\.\d+Z$/, 'Z') : '';

const day = (time: Date) => time.toISOString().slice(0, 10);

/** How long ago a time is; its date when it is more than 30 days ago or in the future. */
export function ago(time: Date | undefined, now = Date.now()): string {
  if (!time) return '';
  const seconds = Math.round((now - time.getTime()) / 1000);
  if (seconds < -5 || seconds > 30 * 86_400) return day(time);
  if (seconds < 5) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

export const dayOf = (time: Date | undefined): string => (time ? day(time) : '');

/** `1 agent`, `2 agents`. */
export const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

const C1 = /[\u007f-\u009f]/g;

/**
 * A message as JSON with the field names of the contract. 64-bit numbers are numbers
 * where that is exact, else strings; times are in ISO 8601; absent fields are omitted.
 * C1 control characters are escaped, because a terminal interprets them.
 * @param indent 0: on one line.
 */
export function toJson(message: unknown, indent = 2): string {
  const plain = (_: string, value: unknown) => {
    if (typeof value !== 'bigint') return value;
    return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  };
  const json = JSON.stringify(message, plain, indent);
  return json.replace(C1, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
}
