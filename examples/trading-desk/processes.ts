import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const fromRoot = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
export const fromHere = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const children = new Set<ChildProcess>();

/** The processes are too short for V8 to gain from optimizing the WebAssembly of the database. */
const FLAGS = ['--liftoff-only'];
const PROGRAM = fromRoot('dist/src/cli/agentllm.js');

/** Starts a command of agentllm and waits until its output matches. */
function start(args: readonly string[], ready: RegExp, env: NodeJS.ProcessEnv = {}): Promise<RegExpExecArray> {
  const child = spawn(process.execPath, [...FLAGS, PROGRAM, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  return new Promise((resolve, reject) => {
    let output = '';
    const read = (chunk: Buffer) => {
      output += chunk;
      const match = ready.exec(output);
      if (match) resolve(match);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.once('exit', () => {
      children.delete(child);
      reject(new Error(`agentllm ${args[0]} has ended:\n${output}`));
    });
  });
}

/** Starts a service with a database in memory. Returns its address. */
export async function startService(): Promise<string> {
  const env = { DATA_DIR: 'memory:', GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: 'off' };
  const [, address = ''] = await start(['serve'], /gRPC +(127\.0\.0\.1:\d+)/, env);
  return address;
}

/** Starts a fake provider whose responses are those of responses.json. Returns its URL. */
export async function startFakeProvider(): Promise<string> {
  const args = ['fake-provider', '--port', '0', '--json', '--faults', fromHere('responses.json')];
  const [, url = ''] = await start(args, /"url":"(http:[^"]+)"/);
  return url;
}

/** Runs a command of agentllm on a service. Returns what it prints. */
export async function agentllm(args: readonly string[], address: string): Promise<string> {
  const env = { PATH: process.env['PATH'], AGENTLLM_ADDRESS: address };
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, ...args], { env });
  return stdout.trimEnd();
}

export async function stopAll(): Promise<void> {
  const ended = [...children].map((child) => new Promise((resolve) => child.once('exit', resolve)));
  for (const child of children) child.kill();
  await Promise.all(ended);
}
