import type { CallableAgent } from '../../../src/client/runtime/model_call.js';

/**
 * An agent with an experiment, which resolves to one agent or the other. Subjects that begin with `b` have the variant
 * `b`; without a subject, and for all others, it is the control.
 */
export const withVariants = (control: CallableAgent, other: CallableAgent): CallableAgent => ({
  ...control,
  resolve: (options = {}) => {
    const { subject } = options;
    const isOther = subject?.startsWith('b') ?? false;
    const state = 'EXPERIMENT_STATE_RUNNING' as const;
    const experiment = {
      experiment: 'models',
      variant: isOther ? 'b' : 'control',
      state,
      counted: subject !== undefined,
    };
    return { ...(isOther ? other : control).resolve(options), experiment };
  },
});
