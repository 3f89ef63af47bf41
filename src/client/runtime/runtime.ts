import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { CircuitBreakers } from './circuit_breaker.js';
import { type Clock, systemClock } from './clock.js';
import { Telemetry } from './telemetry.js';

/** The parts of a runtime that tests replace. */
export interface RuntimeParts {
  readonly clock?: Clock;
  /** A random number from 0 to less than 1. */
  readonly random?: () => number;
  readonly telemetry?: Telemetry;
}

/** What all model calls of one client share: circuit breakers, clock, telemetry and the listeners of receipts. */
export class Runtime {
  readonly clock: Clock;
  readonly random: () => number;
  readonly breakers: CircuitBreakers;
  readonly telemetry: Telemetry;

  /** @param emit receives the receipt of each call. */
  constructor(
    readonly emit: (receipt: Receipt) => void,
    { clock = systemClock, random = Math.random, telemetry = new Telemetry() }: RuntimeParts = {},
  ) {
    this.clock = clock;
    this.random = random;
    this.breakers = new CircuitBreakers(clock);
    this.telemetry = telemetry;
  }
}
