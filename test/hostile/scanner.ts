import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/* Finds a secret wherever it went, in every form in which programs write texts down. */

interface Form {
  readonly about: string;
  readonly bytes: Buffer;
  /** Where capitals do not matter. */
  readonly folded: boolean;
}

/** The part of base64 that is the same whatever stands before and behind a text, for its three places. */
function alignments(text: Buffer): readonly string[] {
  return [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), text]).toString('base64');
    return encoded.slice(Math.ceil((offset * 4) / 3), Math.floor(((offset + text.length) * 4) / 3));
  });
}

const urlSafe = (base64: string) => base64.replaceAll('+', '-').replaceAll('/', '_');

/** Every form of a secret that is looked for. */
export function formsOf(secret: string): readonly Form[] {
  const text = Buffer.from(secret);
  const each = (write: (byte: number) => string) => [...text].map(write).join('');
  const hex2 = (byte: number) => byte.toString(16).padStart(2, '0');
  const once = alignments(text);
  const twice = once.flatMap((base64) => alignments(Buffer.from(base64)));
  const written: readonly (readonly [string, string, boolean])[] = [
    ['as it is', secret, true],
    ['backwards', [...secret].reverse().join(''), true],
    ['in hexadecimal', each(hex2), true],
    ['in hexadecimal with spaces', [...text].map(hex2).join(' '), true],
    ['percent-encoded', encodeURIComponent(secret), true],
    ['percent-encoded altogether', each((byte) => `%${hex2(byte)}`), true],
    ['escaped as in JSON', each((byte) => `\\u00${hex2(byte)}`), true],
    ['as a list of bytes', [...text].join(','), false],
    ['as a list of bytes with spaces', [...text].join(', '), false],
    ...once.flatMap((base64, at) => [
      [`in base64, ${at}`, base64, false] as const,
      [`in base64url, ${at}`, urlSafe(base64), false] as const,
    ]),
    ...twice.map((base64, at) => [`in base64 of base64, ${at}`, base64, false] as const),
  ];
  const wide = [
    { about: 'in UTF-16', bytes: Buffer.from(secret, 'utf16le'), folded: false },
    { about: 'in UTF-16, the other way round', bytes: Buffer.from(secret, 'utf16le').swap16(), folded: false },
  ];
  return [...written.map(([about, one, folded]) => ({ about, bytes: Buffer.from(one), folded })), ...wide];
}

/** Where something was found, in words. */
export interface Find {
  readonly secret: string;
  readonly place: string;
  readonly form: string;
  /** What stands around it. */
  readonly around: string;
}

/** Looks for secrets in whatever it is shown. */
export class Scanner {
  readonly finds: Find[] = [];
  /** How many bytes of each kind of place it has looked through: a search through nothing proves nothing. */
  readonly searched = new Map<string, number>();
  private readonly secrets: readonly { readonly name: string; readonly forms: readonly Form[] }[];

  /** @param secrets by their names, in which a find tells of them. */
  constructor(secrets: Readonly<Record<string, string>>) {
    this.secrets = Object.entries(secrets).map(([name, secret]) => ({
      name,
      forms: formsOf(secret).map((form) =>
        form.folded ? { ...form, bytes: Buffer.from(form.bytes.toString('latin1').toLowerCase(), 'latin1') } : form,
      ),
    }));
  }

  /** @param kind of the place, `log`; what comes behind a colon tells which one of them. */
  look(place: string, content: string | Uint8Array): void {
    const bytes = typeof content === 'string' ? Buffer.from(content) : Buffer.from(content);
    const [kind = place] = place.split(':');
    this.searched.set(kind, (this.searched.get(kind) ?? 0) + bytes.length);
    this.search(place, bytes);
    const unpacked = unpack(bytes);
    if (unpacked) this.search(place.replace(kind, `${kind}: unpacked`), unpacked);
  }

  /** Every file below a directory, by its bytes and its name. */
  lookInto(kind: string, directory: string): void {
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      this.search(`${kind}: name ${path}`, Buffer.from(path));
      if (entry.isFile()) this.look(`${kind}: ${path}`, readFileSync(path));
    }
  }

  /** What was found, as lines to read. */
  get report(): readonly string[] {
    return this.finds.map(({ secret, place, form, around }) => `${secret} ${form} in ${place}: …${around}…`);
  }

  private search(place: string, bytes: Buffer): void {
    const folded = Buffer.from(bytes.toString('latin1').toLowerCase(), 'latin1');
    for (const { name, forms } of this.secrets)
      for (const form of forms) {
        const at = (form.folded ? folded : bytes).indexOf(form.bytes);
        if (at < 0) continue;
        const around = bytes.subarray(Math.max(0, at - 120), at + form.bytes.length + 40).toString('latin1');
        this.finds.push({ secret: name, place, form: form.about, around: around.replace(/[^ -~]/g, '·') });
      }
  }
}

const isGzip = (bytes: Buffer) => bytes[0] === 0x1f && bytes[1] === 0x8b;

/** What was packed with gzip, at the beginning or behind a head of a few lines, as backups are. */
function unpack(bytes: Buffer): Buffer | undefined {
  for (let at = bytes.indexOf('1f8b08', 'hex'); at >= 0 && at < 4096; at = bytes.indexOf('1f8b08', at + 1, 'hex')) {
    const packed = bytes.subarray(at);
    try {
      if (isGzip(packed)) return gunzipSync(packed, { finishFlush: 2 });
    } catch {
      // Three bytes that only look so.
    }
  }
  return undefined;
}
