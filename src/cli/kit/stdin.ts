import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { UsageError } from './inputs.js';
import { decodeText } from './text.js';

/** More than the size of the largest message. Bounds the memory when the input is larger. */
const MAX_BYTES = 8 * 1024 * 1024;

/** Reads standard input to its end. */
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
 * Reads a key: prompts for it at a terminal without echo, else reads standard input.
 * A key is never an argument: every process of the machine can read arguments, and the
 * shell keeps them in its history.
 */
export async function readSecret(what: string): Promise<string> {
  const atTerminal = process.stdin.isTTY;
  const key = atTerminal ? await promptHidden(`${what}: `) : (await readStdin()).replace(/\r?\n$/, '');
  if (key === '' && atTerminal) throw new UsageError('no key was typed');
  if (key === '')
    throw new UsageError(
      `standard input contains no ${what}: pipe it in, as in  printf %s "$KEY" | agentllm …  or run the command at a terminal to type it`,
    );
  return key;
}

/** Prompts on standard error, so that standard output has the result only. The typed text is not echoed. */
function promptHidden(question: string): Promise<string> {
  const sink = new Writable({ write: (_chunk, _encoding, done) => done() });
  const reader = createInterface({ input: process.stdin, output: sink, terminal: true, historySize: 0 });
  process.stderr.write(question);
  return new Promise((resolve, reject) => {
    reader.once('line', (line) => {
      resolve(line.trim());
      reader.close();
    });
    // Ctrl-C and Ctrl-D also close the reader.
    reader.once('close', () => {
      process.stderr.write('\n');
      reject(new UsageError('no key was typed; nothing was changed'));
    });
    reader.once('SIGINT', () => reader.close());
  });
}
