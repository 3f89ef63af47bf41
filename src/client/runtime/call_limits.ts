import type { ResolutionHop } from '../resolution_types.js';
import type { TimerLimits } from './attempt_timers.js';
import type { CallSettings } from './call_settings.js';

/** The default timers in ms. A model that reasons can be silent for a long time before and within its response. */
const FIRST_TOKEN_MS = 10_000;
const IDLE_MS = 15_000;
const PATIENT_MS = 60_000;
const GENERATE_MS = 120_000;

/** The circumstances of an attempt that determine its timers. */
export interface AttemptSituation {
  readonly mode: 'generate' | 'live' | 'whole';
  /** Whether another hop can be tried after this one. */
  readonly hasNext: boolean;
  /** The rest of the deadline in ms. */
  readonly leftMs: number;
}

/** The timers of an attempt. Without another hop it is better to wait longer than to fail. */
export function timerLimits(
  hop: ResolutionHop,
  settings: CallSettings,
  { mode, hasNext, leftMs }: AttemptSituation,
): TimerLimits {
  const reasons = isReasoning(hop);
  const total = settings.attemptMs ?? hop.request_timeout_ms ?? (mode === 'generate' && hasNext ? GENERATE_MS : leftMs);
  return {
    firstTokenMs: settings.firstTokenMs ?? (reasons || !hasNext ? PATIENT_MS : FIRST_TOKEN_MS),
    idleMs: settings.idleMs ?? (reasons ? PATIENT_MS : IDLE_MS),
    totalMs: Math.max(1, Math.min(total, leftMs)),
  };
}

/** Whether the model reasons before it responds, as far as its parameters and the catalogue show. */
function isReasoning({ parameters, model }: ResolutionHop): boolean {
  const sent = (name: string) => parameters.find((parameter) => parameter.name === name)?.value;
  const effort = sent('reasoning_effort');
  if (effort !== undefined) return effort !== 'none' && effort !== 'minimal';
  return sent('thinking_budget_tokens') !== undefined || model.supports_reasoning === true;
}
