import { create, type DescMethod, fromJson, type JsonObject, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { readContract } from '../../src/api/dispatch/contract.js';
import { CallError } from './service.js';

export { expire, grant } from './grant.js';

export const contract = readContract();
export const services = [...contract.registry].flatMap((type) => (type.kind === 'service' ? [type] : []));
/** Every method of the package agentllm.v1. */
export const methods: readonly DescMethod[] = services
  .filter(({ file }) => file.proto.package === 'agentllm.v1')
  .flatMap((service) => service.methods);
export const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;

/** The outcome of a call. */
export interface Outcome {
  readonly code: keyof typeof status;
  readonly reason: string;
  readonly message: string;
  readonly bytes: Buffer | undefined;
  /** The error of a failed call. */
  readonly error: CallError | undefined;
}

export interface RawCall {
  readonly token?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: JsonObject;
  /** Raw bytes that are sent instead of `json`. */
  readonly bytes?: Buffer;
}

/** Calls methods by their descriptors, so that tests also cover methods which are added later. */
export function rawCaller(port: number) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
  });
  onTestFinished(() => client.close());
  return (method: DescMethod, call: RawCall = {}): Promise<Outcome> =>
    method.methodKind === 'unary' ? unary(client, method, call) : firstOf(client, method, call);
}

const identity = (bytes: Buffer) => bytes;

function metadataOf({ token, headers = {} }: RawCall): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  for (const [name, value] of Object.entries(headers)) metadata.add(name, value);
  return metadata;
}

const bytesOf = ({ input }: DescMethod, { json, bytes }: RawCall): Buffer =>
  bytes ?? Buffer.from(toBinary(input, json ? fromJson(input, json, { registry: contract.registry }) : create(input)));

const deadline = () => ({ deadline: Date.now() + 15_000 });

function unary(client: Client, method: DescMethod, call: RawCall): Promise<Outcome> {
  return new Promise((resolve) => {
    const callback = (error: GrpcError | null, bytes?: Buffer) => resolve(error ? failed(error) : succeeded(bytes));
    client.makeUnaryRequest(
      pathOf(method),
      identity,
      identity,
      bytesOf(method, call),
      metadataOf(call),
      deadline(),
      callback,
    );
  });
}

/** Reads the first message of a stream and cancels the stream. */
function firstOf(client: Client, method: DescMethod, call: RawCall): Promise<Outcome> {
  return new Promise((resolve) => {
    const stream = client.makeServerStreamRequest(
      pathOf(method),
      identity,
      identity,
      bytesOf(method, call),
      metadataOf(call),
      deadline(),
    );
    stream.once('data', (bytes: Buffer) => {
      resolve(succeeded(bytes));
      stream.cancel();
    });
    stream.on('error', (error: GrpcError) => resolve(failed(error)));
    stream.once('end', () => resolve(succeeded(undefined)));
  });
}

const succeeded = (bytes: Buffer | undefined): Outcome => ({
  code: 'OK',
  reason: '',
  message: '',
  bytes,
  error: undefined,
});

function failed(error: GrpcError): Outcome {
  const failure = new CallError(error);
  const { code, reason, message } = failure;
  return { code: status[code] as keyof typeof status, reason, message, bytes: undefined, error: failure };
}
