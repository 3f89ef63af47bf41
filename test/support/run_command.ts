import { Readable } from 'node:stream';
import { run } from '../../src/cli/program.js';
import type { Ended } from './command.js';

/*
 * Runs `agentllm` inside the process of the test. A new process takes 0.3 s of processor time for a command that calls a
 * service, and 1 s for one that opens an embedded database; the suite runs a thousand commands. Tests of signals,
 * streams and the program file start processes, with `agentllm` of command.ts.
 */

/** The output of a command until it ends. */
interface Output {
  stdout: string;
  stderr: string;
  /** The code of `process.exit`, which ends a process at once: what the command does or writes later has no effect. */
  exit?: number;
}

let last: Promise<unknown> = Promise.resolve();

/** Runs a command with only the given settings, and with a text or nothing on standard input; one at a time. */
export function runCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { stdin = '' }: { readonly stdin?: string } = {},
): Promise<Ended> {
  const result = last.then(() => runAlone(args, env, stdin));
  last = result.catch(() => undefined);
  return result;
}

async function runAlone(args: readonly string[], env: Readonly<Record<string, string>>, stdin: string): Promise<Ended> {
  const output: Output = { stdout: '', stderr: '' };
  const restore = replaceProcess(
    {
      argv: [process.execPath, 'agentllm', ...args],
      env: { PATH: process.env['PATH'], HTTP_ADDRESS: 'off', GRPC_ADDRESS: '127.0.0.1:0', ...env },
      stdin: Readable.from(stdin === '' ? [] : [Buffer.from(stdin)]),
      exit: (code?: number) => {
        output.exit ??= code ?? Number(process.exitCode ?? 0);
        throw new Error('the command has ended');
      },
    },
    output,
  );
  process.exitCode = undefined;
  try {
    await run(args);
  } catch (error) {
    if (output.exit === undefined) throw error;
  } finally {
    output.exit ??= Number(process.exitCode ?? 0);
    process.exitCode = undefined;
    restore();
  }
  return { code: output.exit, stdout: output.stdout, stderr: output.stderr };
}

/** Replaces properties of the process and collects what is written; returns a function that restores them. */
function replaceProcess(properties: Readonly<Record<string, unknown>>, output: Output): () => void {
  const before = Object.keys(properties).map((name) => [name, Object.getOwnPropertyDescriptor(process, name)] as const);
  for (const [name, value] of Object.entries(properties))
    Object.defineProperty(process, name, { value, configurable: true, writable: true, enumerable: true });
  const writers = (['stdout', 'stderr'] as const).map((name) => {
    const { write } = process[name];
    process[name].write = ((chunk: string | Uint8Array, ...rest: unknown[]) => {
      if (output.exit === undefined) output[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
      const written = rest.find((one) => typeof one === 'function') as (() => void) | undefined;
      if (written) process.nextTick(written);
      return true;
    }) as typeof write;
    return () => {
      process[name].write = write;
    };
  });
  return () => {
    for (const [name, descriptor] of before)
      if (descriptor) Object.defineProperty(process, name, descriptor);
      else Reflect.deleteProperty(process, name);
    for (const restore of writers) restore();
  };
}
