import type { DescMethod, FileRegistry } from '@bufbuild/protobuf';
import { fromBinary, toJson } from '@bufbuild/protobuf';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { type DestinationStream, pino } from 'pino';
import { ErrorReason } from '../../gen/ts/agentllm/v1/error_reason.js';
import { ErrorInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { createApi } from '../../src/api/api.js';
import { addressList } from '../../src/domain/addresses.js';
import { generateKey } from '../../src/domain/fernet.js';
import { startGrpcServer } from '../../src/grpc/server.js';
import { startHttpServer } from '../../src/http/server.js';
import { limits } from '../../src/limits.js';
import { describeError } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { openVault } from '../../src/store/keys/vault.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { contract, pathOf } from '../support/access.js';
import { openStore, type StoreOptions, type TestStore } from '../support/store.js';

/** The whole service in this process, over both transports, with its store within reach and its errors kept. */
export interface Target extends TestStore {
  readonly grpcPort: number;
  readonly httpPort: number;
  /** What it has logged as errors: failures inside it. */
  readonly errors: string[];
}

const HERE = { host: '127.0.0.1', port: 0, text: '127.0.0.1:0' };

export async function startTarget(options: StoreOptions = {}): Promise<Target> {
  const errors: string[] = [];
  const destination: DestinationStream = { write: (line) => void errors.push(line) };
  const log = pino({ level: 'error', serializers: { err: describeError } }, destination);
  const opened = await openStore({ content: 'seeded', ...options });
  const { store, feed } = opened;
  await seed(store, 'missing');
  await openVault(store, generateKey());
  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseWritable: () => feed.isWritable,
    watches: () => ({}),
    rows: () => ({ agent: store.state.agents.size }),
  });
  const reflection = 'on';
  const api = createApi(
    {
      store,
      feed,
      watchRetentionMs: Number.POSITIVE_INFINITY,
      allowedAddresses: addressList(['127.0.0.0/8']),
      providerKeys: new Map(),
    },
    { contract, log, metrics, anonymous: 'loopback' },
  );
  const rpc = await startGrpcServer(HERE, api, { reflection });
  const http = await startHttpServer(HERE, { ...api, log, metrics, reflection, notReady: () => undefined });
  return {
    ...opened,
    grpcPort: rpc.port,
    httpPort: http.port,
    errors,
    async close() {
      await rpc.drain(1_000);
      await http.close();
      await opened.close();
    },
  };
}

/** How a call ended, with all that travelled. */
export interface Ending {
  readonly code: keyof typeof status;
  readonly message: string;
  /** `grpc-status-details-bin`. */
  readonly details: Buffer | undefined;
  /** The messages of the answer. */
  readonly bodies: readonly Buffer[];
}

export interface CallOptions {
  readonly token?: string | undefined;
  readonly deadlineMs?: number;
  /** How many messages of a stream are read. */
  readonly most?: number;
}

const asIs = (bytes: Buffer) => bytes;

/** Calls any method with any bytes, over one connection. */
export class Caller {
  private readonly client: Client;

  constructor(port: number) {
    this.client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.max_receive_message_length': -1,
    });
  }

  close(): void {
    this.client.close();
  }

  call(method: DescMethod, bytes: Buffer, { token, deadlineMs = 10_000, most = 1 }: CallOptions = {}): Promise<Ending> {
    const metadata = new Metadata();
    if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
    const [path, deadline] = [pathOf(method), { deadline: Date.now() + deadlineMs }];
    return new Promise((resolve) => {
      if (method.methodKind === 'unary') {
        const done = (error: GrpcError | null, body?: Buffer) =>
          resolve(error ? failed(error) : fine(body ? [body] : []));
        this.client.makeUnaryRequest(path, asIs, asIs, bytes, metadata, deadline, done);
        return;
      }
      const bodies: Buffer[] = [];
      const stream = this.client.makeServerStreamRequest(path, asIs, asIs, bytes, metadata, deadline);
      stream.on('data', (body: Buffer) => {
        if (bodies.push(body) < most) return;
        resolve(fine(bodies));
        stream.cancel();
      });
      stream.on('error', (error: GrpcError) => resolve({ ...failed(error), bodies }));
      stream.on('end', () => resolve(fine(bodies)));
    });
  }
}

const fine = (bodies: readonly Buffer[]): Ending => ({ code: 'OK', message: '', details: undefined, bodies });

function failed({ code, details, metadata }: GrpcError): Ending {
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  return {
    code: status[code] as keyof typeof status,
    message: details,
    details: Buffer.isBuffer(bytes) ? bytes : undefined,
    bodies: [],
  };
}

const NEVER: readonly string[] = ['INTERNAL', 'UNKNOWN', 'DATA_LOSS'];
const REASONS = new Set<string>(Object.values(ErrorReason));

/** What is wrong with an ending, whatever the request was; undefined: nothing. */
export function blemish(method: DescMethod, { code, message, details, bodies }: Ending): string | undefined {
  if (NEVER.includes(code)) return `${code}: ${message}`;
  for (const body of bodies) {
    const decoded = fromBinary(method.output, body);
    toJson(method.output, decoded, { registry: contract.registry });
  }
  if (code === 'OK') return undefined;
  if (!details) return `${code} without details: ${message}`;
  const travels = Math.ceil(details.length / 3) * 4 + encodeURI(message).length;
  if (travels > limits.maxStatusBytes) return `${code} in ${travels} bytes`;
  return statusBlemish(code, message, details);
}

function statusBlemish(code: string, message: string, bytes: Buffer): string | undefined {
  const told = Status.decode(bytes);
  if (status[told.code] !== code || told.message !== message) return `${code} with the details of ${told.code}`;
  // Every detail is of a type that the contract has, and whole.
  const json = toJson(
    contract.registry.getMessage('google.rpc.Status') as never,
    fromBinary(contract.registry.getMessage('google.rpc.Status') as never, bytes),
    { registry: contract.registry as FileRegistry },
  );
  const info = told.details.find(({ type_url }) => type_url.endsWith('google.rpc.ErrorInfo'));
  if (!info) return `${code} without an ErrorInfo: ${JSON.stringify(json)}`;
  const { reason, domain } = ErrorInfo.decode(info.value);
  if (domain !== 'agentllm' || !REASONS.has(`ERROR_REASON_${reason}`)) return `${code} of the reason ${reason}`;
  return message === '' ? `${code} without a message` : undefined;
}
