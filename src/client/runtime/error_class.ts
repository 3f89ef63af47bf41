import type { ErrorClass } from '../../../gen/ts/agentllm/v1/receipt.js';
import { errorRules } from '../../../gen/ts/error_rules.js';

/** What the chain does after a failure of a class. */
export type ClassAction = (typeof errorRules.classes)[number]['action'];

/** Which circuit breaker a failure of a class opens or counts for. */
export type ClassBreaker = (typeof errorRules.classes)[number]['breaker'];

interface ClassRule {
  readonly action: ClassAction;
  readonly breaker: ClassBreaker;
}

const classes = new Map<ErrorClass, ClassRule>(
  errorRules.classes.map(({ class: name, action, breaker }) => [`ERROR_CLASS_${name}`, { action, breaker }]),
);

/** The action and the breaker of a class. */
export const ruleOfClass = (errorClass: ErrorClass): ClassRule =>
  classes.get(errorClass) ?? { action: 'STOP', breaker: 'NONE' };
