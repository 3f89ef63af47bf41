import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { UsageError } from './inputs.js';
import { decodeText } from './text.js';

/** More than any message may have: who pipes a disk into us hears of it. */
const MAX_BYTES = 8 * 1024 * 1024;

/** Everything on standard input. */
export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_BYTES) throw new UsageError(`standard input has more than ${MAX_BYTES} bytes`);
  }
  const text = decodeText(Buffer.concat(chunks));
  if (text === undefined) throw new UsageError('standard input must be text in UTF-8 or UTF-16');
  return text;
}

/**
 * A key: typed unseen at a terminal, else read from standard input. Never an
 * argument, which every process of the machine can read and every shell remembers.
 */
export async function readSecret(what: string): Promise<string> {
  const atTerminal = process.stdin.isTTY;
  const key = atTerminal ? await promptHidden(`${what}: `) : (await readStdin()).replace(/\r?\n$/, '');
  if (key === '' && atTerminal) throw new UsageError('no key was typed');
  if (key === '')
    throw new UsageError(
      `no ${what} came from standard input: pipe it in, as in  printf %s "$KEY" | agentllm …  or run the command at a terminal to type it`,
    );
  return key;
}

/** Asks on standard error, so that standard output has the answer alone, and shows nothing of what is typed. */
function promptHidden(question: string): Promise<string> {
  const sink = new Writable({ write: (_chunk, _encoding, done) => done() });
  const reader = createInterface({ input: process.stdin, output: sink, terminal: true, historySize: 0 });
  process.stderr.write(question);
  return new Promise((resolve, reject) => {
    reader.once('line', (line) => {
      resolve(line.trim());
      reader.close();
    });
    // Ctrl-C and Ctrl-D close it, too.
    reader.once('close', () => {
      process.stderr.write('\n');
      reject(new UsageError('nothing was typed, so nothing was done'));
    });
    reader.once('SIGINT', () => reader.close());
  });
}
