/** A variable of the command line tool, without the white space around it; empty is not set. */
export const variable = (name: `AGENTLLM_${string}`): string | undefined => process.env[name]?.trim() || undefined;
