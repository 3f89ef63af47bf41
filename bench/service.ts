import { Client, credentials } from '@grpc/grpc-js';
import { type Lab, type Program, root } from './lab.js';

/** The built service in a separate process, on free local ports. */
export interface Service {
  readonly port: number;
  readonly program: Program;
  readonly client: Caller;
}

/** Sends one unary call as bytes; rejects when it fails. */
export type Caller = (path: string, request: Uint8Array) => Promise<Buffer>;

const PROGRAM = 'dist/src/cli/agentllm.js';

export function spawnService(lab: Lab, env: Readonly<Record<string, string>>): Program {
  const { PATH } = process.env;
  const ports = { GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: '127.0.0.1:0', LOG_LEVEL: 'warn' };
  return lab.start(process.execPath, [PROGRAM, 'serve'], { cwd: root, env: { PATH, ...ports, ...env } });
}

/** Starts the service, with a new embedded database unless `env` sets DATABASE_URL. */
export async function startService(lab: Lab, env: Readonly<Record<string, string>> = {}): Promise<Service> {
  const embedded = env['DATABASE_URL'] === undefined;
  const program = spawnService(lab, embedded ? { DATA_DIR: await lab.directory(), ...env } : env);
  const [, port] = await program.match(/is ready after[\s\S]*?gRPC +127\.0\.0\.1:(\d+)/);
  return { port: Number(port), program, client: caller(lab, Number(port)) };
}

/** Calls a server from the benchmark process, for setup and checks and never for load. */
export function caller(lab: Lab, port: number): Caller {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  lab.onClose(async () => client.close());
  const identity = (bytes: Buffer) => bytes;
  return (path, request) =>
    new Promise((resolve, reject) => {
      const deadline = Date.now() + 30_000;
      client.makeUnaryRequest(path, identity, identity, Buffer.from(request), { deadline }, (error, reply) =>
        error ? reject(error) : resolve(reply as Buffer),
      );
    });
}

/** Runs `work` for each item, at most `width` at a time. */
export async function inParallel<T>(items: readonly T[], width: number, work: (item: T) => Promise<unknown>) {
  const remaining = items.values();
  const worker = async () => {
    for (const item of remaining) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
