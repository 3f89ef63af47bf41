import type { ErrorClass, Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { receiptJson } from './receipt_json.js';

/** Mark errors across copies of the library: a process may load both its ESM and its CommonJS build. */
const CHAIN_ERROR = Symbol.for('agentllm.ChainError');
const TORN_ERROR = Symbol.for('agentllm.TornStreamError');
const ABORTED_ERROR = Symbol.for('agentllm.CallAbortedError');

/** What is known about a failed call. */
interface CallFacts {
  readonly receipt: Receipt;
  readonly errorClass: ErrorClass;
  /** The HTTP status of the last attempt; undefined if it had no response. */
  readonly status?: number | undefined;
  readonly cause?: unknown;
}

const has = (value: unknown, mark: symbol): boolean => typeof value === 'object' && value !== null && mark in value;

/**
 * The error of a call for which no hop produced a response. The chain has made all attempts that may succeed; no SDK
 * repeats the call for this error. The message has one sentence for each attempt.
 */
export class ChainError extends Error {
  override readonly name: string = 'ChainError';
  /** The class of the last failure. */
  readonly errorClass: ErrorClass;
  /** The HTTP status of the last attempt; undefined if it had no response. It is not named `status`, which SDKs read. */
  readonly httpStatus: number | undefined;
  /** The record of the call: its attempts, skipped hops, usage and parameters. */
  readonly receipt: Receipt;

  constructor(message: string, { receipt, errorClass, status, ...rest }: CallFacts) {
    super(message, 'cause' in rest ? { cause: rest.cause } : undefined);
    this.receipt = receipt;
    this.errorClass = errorClass;
    this.httpStatus = status;
    Object.defineProperty(this, CHAIN_ERROR, { value: true });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return has(value, CHAIN_ERROR);
  }

  /** Includes the message, which JSON.stringify omits for an Error. */
  toJSON(): object {
    const { name, message, errorClass, httpStatus, receipt } = this;
    return { name, message, errorClass, httpStatus, receipt: receiptJson(receipt) };
  }
}

/**
 * The error of a stream that broke after a part of it had been emitted. Another hop could not continue it; the caller
 * decides whether to discard the part and call again.
 */
export class TornStreamError extends ChainError {
  override readonly name = 'TornStreamError';
  /** The text received so far. Tool calls that were not complete are not part of it. */
  readonly content: string;

  constructor(message: string, facts: CallFacts & { readonly content: string }) {
    const { content, ...rest } = facts;
    super(message, rest);
    this.content = content;
    Object.defineProperty(this, TORN_ERROR, { value: true });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return has(value, TORN_ERROR);
  }
}

/**
 * The error of a call that its caller aborted. Its name is that of the reason, AbortError or TimeoutError, by which SDKs
 * recognize an abort.
 */
export class CallAbortedError extends Error {
  override readonly name: 'AbortError' | 'TimeoutError';
  /** The record of the call up to the abort. */
  readonly receipt: Receipt;
  /** The text received so far. */
  readonly content: string;

  /** @param reason the reason of the signal; it becomes the cause. */
  constructor(reason: unknown, facts: { readonly receipt: Receipt; readonly content: string }) {
    super('The caller aborted the call', { cause: reason });
    this.name = reason instanceof Error && reason.name === 'TimeoutError' ? 'TimeoutError' : 'AbortError';
    this.receipt = facts.receipt;
    this.content = facts.content;
    Object.defineProperty(this, ABORTED_ERROR, { value: true });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return has(value, ABORTED_ERROR);
  }
}
