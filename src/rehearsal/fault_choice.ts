import type { ResolutionHop } from '../client/resolution_types.js';
import { FaultError, parseFault } from '../fake_provider/faults/fault.js';
import { type FaultDefinition, faultCatalogue } from '../fake_provider/faults/fault_catalogue.js';
import { emulatedProvider } from './text_call.js';

/** Whether a fault needs a request that a rehearsal does not send: for a key, with a prefill, or with tools. */
const isOfOtherCalls = ({ effect }: FaultDefinition): boolean =>
  effect.kind === 'key state' ||
  (effect.kind === 'error' && effect.only === 'with prefill') ||
  (effect.kind === 'content' && effect.what === 'truncated arguments');

const ofCalls = faultCatalogue.filter((fault) => !isOfOtherCalls(fault));

/** The first fault of each error class. */
const ofClasses = ofCalls.filter(
  ({ errorClass }, at) => errorClass && ofCalls.findIndex((one) => one.errorClass === errorClass) === at,
);

/** The names of the faults that can be rehearsed. */
export const rehearsableFaults: readonly string[] = ofCalls.map(({ name }) => name);

/** The faults that the provider of a hop can have: all of them, or one of each error class. */
export function faultsFor(hop: ResolutionHop, all: boolean): string[] {
  const provider = emulatedProvider(hop);
  const isPossible = ({ providers }: FaultDefinition) => !providers || providers.includes(provider);
  return (all ? ofCalls.filter(isPossible) : ofClasses).map(({ name }) => name);
}

/** What is wrong with the text of a fault; undefined: nothing. */
export function faultProblem(text: string): string | undefined {
  try {
    const { definition } = parseFault(text);
    return ofCalls.includes(definition) ? undefined : 'does not affect the calls of a rehearsal';
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
    return error.message;
  }
}

/**
 * A fault as it is applied at a hop. A fault of a parameter concerns, unless its text names one, the first parameter that
 * the hop sends.
 */
export function faultAt(hop: ResolutionHop, text: string): string {
  const { definition } = parseFault(text);
  const [first] = hop.parameters;
  if (!first || !Object.hasOwn(definition.options, 'param') || /,\s*param=/.test(text)) return text;
  return `${text},param=${first.wire_name}`;
}

/** The error class of a fault; undefined: the call succeeds, or the class depends on the options and on the call. */
export const classOf = (text: string): string | undefined => parseFault(text).definition.errorClass;
