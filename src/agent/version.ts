/** The version of this agent, told in its member key; an operator works with agents one version older. */
export const agentVersion = '0.1.0';
