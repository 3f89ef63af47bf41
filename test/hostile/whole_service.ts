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
import { openEncryption } from '../../src/store/keys/encryption.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { contract, pathOf } from '../support/access.js';
import { openStore, type StoreOptions, type TestStore } from '../support/store.js';

/** The whole service in this process with both transports. Its store is accessible and its errors are recorded. */
export interface Target extends TestStore {
  readonly grpcPort: number;
  readonly httpPort: number;
  /** The log lines of level error: internal failures. */
  readonly errors: string[];
}

const ADDRESS = { host: '127.0.0.1', port: 0, text: '127.0.0.1:0' };

export async function startTarget(options: StoreOptions = {}): Promise<Target> {
  const errors: string[] = [];
  const destination: DestinationStream = { write: (line) => void errors.push(line) };
  const log = pino({ level: 'error', serializers: { err: describeError } }, destination);
  const opened = await openStore({ content: 'seeded', ...options });
  const { store, feed } = opened;
  await seed(store, 'missing');
  await openEncryption(store, generateKey());
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
      usageRetentionMs: Number.POSITIVE_INFINITY,
      allowedAddresses: addressList(['127.0.0.0/8']),
      providerKeys: new Map(),
    },
    { contract, log, metrics, anonymous: 'loopback' },
  );
  const rpc = await startGrpcServer(ADDRESS, api, { reflection });
  const http = await startHttpServer(ADDRESS, { ...api, log, metrics, reflection, notReady: () => undefined });
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

/** The result of a call with all received bytes. */
export interface Ending {
  readonly code: keyof typeof status;
  readonly message: string;
  /** `grpc-status-details-bin`. */
  readonly details: Buffer | undefined;
  /** The response messages. */
  readonly bodies: readonly Buffer[];
}

export interface CallOptions {
  readonly token?: string | undefined;
  readonly deadlineMs?: number;
  /** The number of messages of a stream that are read before it is cancelled. */
  readonly maxMessages?: number;
}

const identity = (bytes: Buffer) => bytes;

/** Calls any method with any bytes over one connection. */
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

  call(
    method: DescMethod,
    bytes: Buffer,
    { token, deadlineMs = 10_000, maxMessages = 1 }: CallOptions = {},
  ): Promise<Ending> {
    const metadata = new Metadata();
    if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
    const [path, deadline] = [pathOf(method), { deadline: Date.now() + deadlineMs }];
    return new Promise((resolve) => {
      if (method.methodKind === 'unary') {
        const callback = (error: GrpcError | null, body?: Buffer) =>
          resolve(error ? failed(error) : succeeded(body ? [body] : []));
        this.client.makeUnaryRequest(path, identity, identity, bytes, metadata, deadline, callback);
        return;
      }
      const bodies: Buffer[] = [];
      const stream = this.client.makeServerStreamRequest(path, identity, identity, bytes, metadata, deadline);
      stream.on('data', (body: Buffer) => {
        if (bodies.push(body) < maxMessages) return;
        resolve(succeeded(bodies));
        stream.cancel();
      });
      stream.on('error', (error: GrpcError) => resolve({ ...failed(error), bodies }));
      stream.on('end', () => resolve(succeeded(bodies)));
    });
  }
}

const succeeded = (bodies: readonly Buffer[]): Ending => ({ code: 'OK', message: '', details: undefined, bodies });

function failed({ code, details, metadata }: GrpcError): Ending {
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  return {
    code: status[code] as keyof typeof status,
    message: details,
    details: Buffer.isBuffer(bytes) ? bytes : undefined,
    bodies: [],
  };
}

const INTERNAL_CODES: readonly string[] = ['INTERNAL', 'UNKNOWN', 'DATA_LOSS'];
const REASONS = new Set<string>(Object.values(ErrorReason));

/** Describes why a result is invalid for any request; undefined when it is valid. */
export function responseDefect(method: DescMethod, { code, message, details, bodies }: Ending): string | undefined {
  if (INTERNAL_CODES.includes(code)) return `${code}: ${message}`;
  for (const body of bodies) {
    const decoded = fromBinary(method.output, body);
    toJson(method.output, decoded, { registry: contract.registry });
  }
  if (code === 'OK') return undefined;
  if (!details) return `${code} without details: ${message}`;
  const size = Math.ceil(details.length / 3) * 4 + encodeURI(message).length;
  if (size > limits.maxStatusBytes) return `${code} in ${size} bytes`;
  return statusDefect(code, message, details);
}

function statusDefect(code: string, message: string, bytes: Buffer): string | undefined {
  const decoded = Status.decode(bytes);
  if (status[decoded.code] !== code || decoded.message !== message)
    return `${code} with the details of ${decoded.code}`;
  // Throws when a detail is incomplete or of a type that the contract does not have.
  const json = toJson(
    contract.registry.getMessage('google.rpc.Status') as never,
    fromBinary(contract.registry.getMessage('google.rpc.Status') as never, bytes),
    { registry: contract.registry as FileRegistry },
  );
  const info = decoded.details.find(({ type_url }) => type_url.endsWith('google.rpc.ErrorInfo'));
  if (!info) return `${code} without an ErrorInfo: ${JSON.stringify(json)}`;
  const { reason, domain } = ErrorInfo.decode(info.value);
  if (domain !== 'agentllm' || !REASONS.has(`ERROR_REASON_${reason}`)) return `${code} of the reason ${reason}`;
  return message === '' ? `${code} without a message` : undefined;
}
