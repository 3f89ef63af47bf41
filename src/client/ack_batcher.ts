import {
  type Acknowledgement,
  AgentLLMConfigWatchServiceService,
  AcknowledgeRevisionRequest as Request,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { maxElements } from '../max_elements.js';
import type { TlsOptions } from './channel.js';
import type { Connection } from './connection.js';
import { AgentLLMError } from './error.js';
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
  /** The calls in progress. */
  private readonly calls = new Map<AbortController, Connection>();

  /** Resolves when the service has received the acknowledgement, over the connection of any client in the batch. */
  send(connection: Connection, acknowledgement: Acknowledgement, ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.pending.push({ connection, acknowledgement, ms, resolve, reject });
      this.timer ??= setTimeout(() => this.flush(), BATCH_MS).unref();
    });
  }

  /** Cancels the calls over a connection that is being closed. Their batches are sent again over another one. */
  leave(connection: Connection): void {
    for (const [call, used] of this.calls) if (used === connection) call.abort();
  }

  private flush(): void {
    this.timer = undefined;
    const { pending } = this;
    this.pending = [];
    for (let at = 0; at < pending.length; at += MAX_ACKNOWLEDGEMENTS)
      void this.sendBatch(pending.slice(at, at + MAX_ACKNOWLEDGEMENTS));
  }

  private async sendBatch(batch: readonly PendingAck[]): Promise<void> {
    const { ms } = batch[0] as PendingAck;
    const connections = [...new Set(batch.map(({ connection }) => connection))];
    const bytes = METHOD.requestSerialize(
      Request.fromPartial({ acknowledgements: batch.map(({ acknowledgement }) => acknowledgement) }),
    );
    try {
      await this.callOverAny(connections, bytes, ms);
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  /** Makes the call over the first connection that is not being closed. The service accepts a repetition. */
  private async callOverAny([connection, ...others]: readonly Connection[], bytes: Buffer, ms: number): Promise<void> {
    try {
      await this.call(connection as Connection, bytes, ms);
    } catch (error) {
      if (others.length === 0 || (error as AgentLLMError).code !== 'CANCELLED') throw error;
      await this.callOverAny(others, bytes, ms);
    }
  }

  private async call(connection: Connection, bytes: Buffer, ms: number): Promise<void> {
    const call = new AbortController();
    this.calls.set(call, connection);
    let isLate = false;
    const onDeadline = () => {
      isLate = true;
      call.abort();
    };
    // Not a deadline of grpc-js, whose timer would keep the process alive.
    const timer = setTimeout(onDeadline, ms).unref();
    try {
      await connection.call(METHOD, () => ({ bytes }), { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY });
    } catch (error) {
      const facts = { code: 'DEADLINE_EXCEEDED', method: METHOD.path.slice(1), cause: error } as const;
      throw isLate ? AgentLLMError.here(`No response within ${ms} ms`, facts) : error;
    } finally {
      clearTimeout(timer);
      this.calls.delete(call);
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
