import { gunzip, inflate } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { limits } from '../limits.js';

/** Concurrent decompressions: each needs a thread of the pool and up to twice its size in memory. */
const CONCURRENCY = 2;

/** The status that grpc-js sends to the caller. */
export interface CallFailure {
  readonly code: status;
  readonly details: string;
}

const failure = (code: status, details: string): CallFailure => ({ code, details });
const DECOMPRESS = { gzip: gunzip, deflate: inflate } as const;

/** The request that a message belongs to. */
interface MessageOwner {
  readonly isClosed: boolean;
}

interface Job {
  readonly bytes: Buffer;
  readonly encoding: keyof typeof DECOMPRESS;
  readonly request: MessageOwner;
  readonly resolve: (bytes: Buffer) => void;
  readonly reject: (failure: CallFailure) => void;
}

/**
 * Decompresses the messages of all calls with bounded concurrency. grpc-js bounds the size of each message but starts
 * all decompressions at the same time: 600 compressed messages of 60 KB took 2.5 GB.
 */
export class Decompression {
  private readonly waiting: Job[] = [];
  /** Requests with a message that is queued or being decompressed. */
  private readonly requests = new Set<MessageOwner>();
  private running = 0;

  isFor(request: MessageOwner): boolean {
    return this.requests.has(request);
  }

  async run(bytes: Buffer, encoding: string, request: MessageOwner): Promise<Buffer> {
    this.requests.add(request);
    return this.enqueue(bytes, encoding, request).finally(() => this.requests.delete(request));
  }

  private enqueue(bytes: Buffer, encoding: string, request: MessageOwner): Promise<Buffer> {
    if (encoding !== 'gzip' && encoding !== 'deflate')
      return Promise.reject(
        failure(status.UNIMPLEMENTED, `Received message compressed with unsupported encoding "${encoding}"`),
      );
    return new Promise((resolve, reject) => {
      this.waiting.push({ bytes, encoding, request, resolve, reject });
      this.start();
    });
  }

  private start(): void {
    while (this.running < CONCURRENCY) {
      const job = this.waiting.shift();
      if (!job) return;
      if (job.request.isClosed) {
        job.reject(failure(status.CANCELLED, 'The call is over'));
        continue;
      }
      this.running++;
      const { bytes, encoding, resolve, reject } = job;
      DECOMPRESS[encoding](bytes, { maxOutputLength: limits.maxRequestBytes }, (error, decompressed) => {
        this.running--;
        if (error) reject(failureOf(error));
        else resolve(decompressed);
        this.start();
      });
    }
  }
}

function failureOf(error: NodeJS.ErrnoException): CallFailure {
  if (error.code === 'ERR_BUFFER_TOO_LARGE')
    return failure(
      status.RESOURCE_EXHAUSTED,
      `Received message that decompresses to a size larger than ${limits.maxRequestBytes}`,
    );
  return failure(status.INTERNAL, 'Failed to decompress message');
}
