import {
  type Acknowledgement,
  AgentLLMConfigWatchServiceService,
  AcknowledgeRevisionRequest as Request,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { maxElements } from '../limits.js';
import type { TlsOptions } from './channel.js';
import type { Connection } from './connection.js';
import type { Token } from './headers.js';

const METHOD = AgentLLMConfigWatchServiceService.acknowledgeRevision;
/** How long the first acknowledgement of a batch waits for more. */
const BATCH_MS = 50;
const MAX_ACKNOWLEDGEMENTS = maxElements['agentllm.v1.AcknowledgeRevisionRequest.acknowledgements'];

interface PendingAck {
  readonly connection: Connection;
  readonly acknowledgement: Acknowledgement;
  readonly ms: number;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * Batches the acknowledgements of the clients of one process. Otherwise a thousand clients that receive one change would
 * make a thousand calls, which cost as much as the change itself.
 */
export class AckBatcher {
  private pending: PendingAck[] = [];
  private timer: NodeJS.Timeout | undefined;
  /** The calls in progress, by the connection that they use. */
  private readonly calls = new Map<Connection, AbortController>();

  /** Resolves when the service has received the acknowledgement, over the connection of any client in the batch. */
  send(connection: Connection, acknowledgement: Acknowledgement, ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.pending.push({ connection, acknowledgement, ms, resolve, reject });
      this.timer ??= setTimeout(() => this.flush(), BATCH_MS).unref();
    });
  }

  /** Cancels the call over a connection that is being closed. The batch is sent again over another one. */
  leave(connection: Connection): void {
    this.calls.get(connection)?.abort();
  }

  private flush(): void {
    this.timer = undefined;
    const { pending } = this;
    this.pending = [];
    for (let at = 0; at < pending.length; at += MAX_ACKNOWLEDGEMENTS)
      void this.sendBatch(pending.slice(at, at + MAX_ACKNOWLEDGEMENTS));
  }

  private async sendBatch(batch: readonly PendingAck[]): Promise<void> {
    const [first, last] = [batch[0] as PendingAck, batch.at(-1) as PendingAck];
    const acknowledgements = batch.map(({ acknowledgement }) => acknowledgement);
    try {
      await this.call(first, acknowledgements).catch((error) => {
        if (last.connection === first.connection || error.code !== 'CANCELLED') throw error;
        return this.call(last, acknowledgements);
      });
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  private async call({ connection, ms }: PendingAck, acknowledgements: readonly Acknowledgement[]): Promise<void> {
    const call = new AbortController();
    this.calls.set(connection, call);
    // Not a deadline of grpc-js, whose timer would keep the process alive.
    const timer = setTimeout(() => call.abort(), ms).unref();
    const bytes = METHOD.requestSerialize(Request.fromPartial({ acknowledgements: [...acknowledgements] }));
    try {
      await connection.call(METHOD, () => ({ bytes }), { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY });
    } finally {
      clearTimeout(timer);
      if (this.calls.get(connection) === call) this.calls.delete(connection);
    }
  }
}

/** Clients with the same address and credentials can share a batch. */
interface Sender {
  readonly address: string;
  readonly token: Token | undefined;
  readonly tls: boolean | TlsOptions | undefined;
}

const batchers: (Sender & { readonly batcher: WeakRef<AckBatcher> })[] = [];

/** The batcher that all clients with this address, token and TLS options share. */
export function ackBatcherOf({ address, token, tls }: Sender): AckBatcher {
  for (const [at, { batcher }] of [...batchers.entries()].reverse()) if (!batcher.deref()) batchers.splice(at, 1);
  const same = batchers.find((one) => one.address === address && one.token === token && one.tls === tls);
  const known = same?.batcher.deref();
  if (known) return known;
  const batcher = new AckBatcher();
  batchers.push({ address, token, tls, batcher: new WeakRef(batcher) });
  return batcher;
}
