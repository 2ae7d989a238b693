/* A statically linked program, for client/program to refuse. */
int main(void)
{
    return 0;
}
