import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/* Finds a secret in texts and files, in every form in which programs usually encode texts. */

interface Form {
  readonly about: string;
  readonly bytes: Buffer;
  /** Whether upper and lower case are equal. */
  readonly ignoreCase: boolean;
}

/** The part of the base64 encoding that does not depend on the surrounding bytes, for each of the three alignments. */
function alignments(text: Buffer): readonly string[] {
  return [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), text]).toString('base64');
    return encoded.slice(Math.ceil((offset * 4) / 3), Math.floor(((offset + text.length) * 4) / 3));
  });
}

const urlSafe = (base64: string) => base64.replaceAll('+', '-').replaceAll('/', '_');

/** Every form in which a secret is searched. */
export function formsOf(secret: string): readonly Form[] {
  const text = Buffer.from(secret);
  const mapBytes = (encode: (byte: number) => string) => [...text].map(encode).join('');
  const hex2 = (byte: number) => byte.toString(16).padStart(2, '0');
  const once = alignments(text);
  const twice = once.flatMap((base64) => alignments(Buffer.from(base64)));
  const encoded: readonly (readonly [string, string, boolean])[] = [
    ['unchanged', secret, true],
    ['reversed', [...secret].reverse().join(''), true],
    ['in hexadecimal', mapBytes(hex2), true],
    ['in hexadecimal with spaces', [...text].map(hex2).join(' '), true],
    ['percent-encoded', encodeURIComponent(secret), true],
    ['percent-encoded, every byte', mapBytes((byte) => `%${hex2(byte)}`), true],
    ['escaped as in JSON', mapBytes((byte) => `\\u00${hex2(byte)}`), true],
    ['as a list of bytes', [...text].join(','), false],
    ['as a list of bytes with spaces', [...text].join(', '), false],
    ...once.flatMap((base64, at) => [
      [`in base64, ${at}`, base64, false] as const,
      [`in base64url, ${at}`, urlSafe(base64), false] as const,
    ]),
    ...twice.map((base64, at) => [`in base64 of base64, ${at}`, base64, false] as const),
  ];
  const utf16 = [
    { about: 'in UTF-16', bytes: Buffer.from(secret, 'utf16le'), ignoreCase: false },
    { about: 'in UTF-16, big-endian', bytes: Buffer.from(secret, 'utf16le').swap16(), ignoreCase: false },
  ];
  return [...encoded.map(([about, form, ignoreCase]) => ({ about, bytes: Buffer.from(form), ignoreCase })), ...utf16];
}

/** One occurrence of a secret. */
export interface Match {
  readonly secret: string;
  readonly place: string;
  readonly form: string;
  /** The text around it. */
  readonly context: string;
}

/** Searches texts and files for secrets. */
export class Scanner {
  readonly matches: Match[] = [];
  /** The number of searched bytes by kind of place, so that a test can check that the search was not empty. */
  readonly searched = new Map<string, number>();
  private readonly exact = new Patterns();
  private readonly lowerCase = new Patterns();

  /** @param secrets the secrets by the names that matches show. */
  constructor(secrets: Readonly<Record<string, string>>) {
    for (const [secret, text] of Object.entries(secrets))
      for (const { about, bytes, ignoreCase } of formsOf(text)) {
        if (ignoreCase) this.lowerCase.add(lowerCaseOf(bytes), { secret, about });
        else this.exact.add(bytes, { secret, about });
      }
  }

  /** @param place the kind of the place, for example `log`, optionally with a colon and the exact place. */
  scan(place: string, content: string | Uint8Array): void {
    const bytes = typeof content === 'string' ? Buffer.from(content) : Buffer.from(content);
    const [kind = place] = place.split(':');
    this.searched.set(kind, (this.searched.get(kind) ?? 0) + bytes.length);
    this.search(place, bytes);
    const unpacked = gunzipped(bytes);
    if (unpacked) this.search(place.replace(kind, `${kind}: unpacked`), unpacked);
  }

  /** Searches the name and the content of every file in a directory tree. */
  scanDirectory(kind: string, directory: string): void {
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      this.search(`${kind}: name ${path}`, Buffer.from(path));
      if (entry.isFile()) this.scan(`${kind}: ${path}`, readFileSync(path));
    }
  }

  /** The matches as lines of text. */
  get report(): readonly string[] {
    return this.matches.map(({ secret, place, form, context }) => `${secret} ${form} in ${place}: …${context}…`);
  }

  private search(place: string, bytes: Buffer): void {
    const found = [...this.exact.findIn(bytes), ...this.lowerCase.findIn(lowerCaseOf(bytes))];
    for (const { at, length, secret, about } of found) {
      const context = bytes.subarray(Math.max(0, at - 120), at + length + 40).toString('latin1');
      this.matches.push({ secret, place, form: about, context: context.replace(/[^ -~]/g, '·') });
    }
  }
}

const lowerCaseOf = (bytes: Buffer) => Buffer.from(bytes.toString('latin1').toLowerCase(), 'latin1');

interface Pattern {
  readonly bytes: Buffer;
  readonly secret: string;
  readonly about: string;
}

/**
 * Many patterns that are searched for in one pass: the first two bytes select the patterns that are compared. Separate
 * searches for 200 patterns took 40 s for the files of a database.
 */
class Patterns {
  private readonly isPrefix = new Uint8Array(0x10000);
  private readonly byPrefix = new Map<number, Pattern[]>();

  add(bytes: Buffer, about: Omit<Pattern, 'bytes'>): void {
    const prefix = bytes.readUInt16LE(0);
    this.isPrefix[prefix] = 1;
    this.byPrefix.set(prefix, [...(this.byPrefix.get(prefix) ?? []), { bytes, ...about }]);
  }

  /** The first match of each pattern. */
  findIn(bytes: Buffer): (Pattern & { readonly at: number; readonly length: number })[] {
    const found = new Map<Pattern, number>();
    for (let at = 0; at + 1 < bytes.length; at++) {
      const prefix = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
      if (this.isPrefix[prefix] === 0) continue;
      for (const pattern of this.byPrefix.get(prefix) ?? []) {
        const end = at + pattern.bytes.length;
        if (found.has(pattern) || end > bytes.length) continue;
        if (bytes.compare(pattern.bytes, 0, pattern.bytes.length, at, end) === 0) found.set(pattern, at);
      }
    }
    return [...found].map(([pattern, at]) => ({ ...pattern, at, length: pattern.bytes.length }));
  }
}

const isGzip = (bytes: Buffer) => bytes[0] === 0x1f && bytes[1] === 0x8b;

/** The content of gzip data at the start of a file or after a header of a few lines, as in a backup. */
function gunzipped(bytes: Buffer): Buffer | undefined {
  for (let at = bytes.indexOf('1f8b08', 'hex'); at >= 0 && at < 4096; at = bytes.indexOf('1f8b08', at + 1, 'hex')) {
    const packed = bytes.subarray(at);
    try {
      if (isGzip(packed)) return gunzipSync(packed, { finishFlush: 2 });
    } catch {
      // These bytes are not the start of gzip data.
    }
  }
  return undefined;
}
